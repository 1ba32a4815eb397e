-- A user who does more than a person can. This is like the rule that spate has without a rules file, but without its false alarms.
--
-- In the logs of real shops, most users that COUNT(*) > 5 flags are ordinary people. Three things look like bursts but are not:
--   * an order: its lines, up to 46 of them, have the same time;
--   * an emptied cart: one click after the other on "remove";
--   * an event that was sent twice, identical to the last byte.
-- So the rule counts moments instead of rows: lines of an order and repetitions share theirs. Removals do not count at all: they take nothing
-- from the shop. A script that buys one thing after the other still has a moment for each.
--
-- Times in whole seconds leave few moments: 20 pages in 3 seconds would be 3 moments. Hence the second condition, different products looked at.
--
-- HOP instead of TUMBLE: the windows overlap by half, so that a burst across the end of one lies entirely in the next. The price is two alerts
-- for most bursts. With TUMBLE(txn_timestamp, INTERVAL '10' SECOND) there is one, and a user who stays just below the limit on either side of a window's
-- end goes unseen.
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
