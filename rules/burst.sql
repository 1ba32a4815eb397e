-- Finds users who do more than a person can do. This rule is similar to the default rule, which applies without a rules file, but avoids its false
-- alarms.
--
-- In logs from real shops, most users that COUNT(*) > 5 flags are ordinary people. Three things look like bursts but are not:
--   * an order, whose lines (up to 46) all have the same time;
--   * an emptied cart, with one click on "remove" after another;
--   * an event that was sent twice, with identical bytes.
-- The rule therefore counts moments (distinct event times) instead of rows: the lines of an order share one moment, as do repeated events. Removals do
-- not count at all, because they take nothing from the shop. A script that buys one item after another still has a separate moment for each item.
--
-- If times are whole seconds, there are few moments: 20 pages in 3 seconds would be 3 moments. The second condition therefore counts the different
-- products viewed.
--
-- The rule uses HOP instead of TUMBLE. The windows overlap by half, so a burst that crosses the end of one window can lie entirely in the next. The drawback
-- is that most bursts raise two alerts. With TUMBLE(txn_timestamp, INTERVAL '10' SECOND), most bursts raise one alert, but a user who stays just below the
-- limit on either side of a window boundary is not detected.
--
-- rule: burst
-- summary: {user_id} did {moments} things in 10 seconds
-- param: moments = 5
-- param: critical = 10
-- critical: COUNT(DISTINCT txn_timestamp) > ${critical}
-- runbook: https://owasp.org/www-project-automated-threats-to-web-applications/
INSERT INTO alerts
SELECT user_id, COUNT(DISTINCT txn_timestamp) AS moments, COUNT(DISTINCT product_id) FILTER (WHERE event_type = 'view') AS products, COUNT(*) AS events
FROM activity
WHERE event_type <> 'remove_from_cart'
GROUP BY HOP(txn_timestamp, INTERVAL '5' SECOND, INTERVAL '10' SECOND), user_id
HAVING COUNT(DISTINCT txn_timestamp) > ${moments} OR COUNT(DISTINCT product_id) FILTER (WHERE event_type = 'view') > ${moments};
