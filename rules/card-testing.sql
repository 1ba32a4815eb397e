-- Finds card testing: an attacker tries stolen card numbers with small payments to find those that work.
--
-- There are two signs of card testing, and either is enough for an alert:
--   * Many small payments, each in a separate session, because every card needs a new checkout. The lines of one order share a session, so even
--     a long order counts once.
--   * Many declined payments. The rule counts their distinct event times, because a payment that is reported twice is one attempt.
-- In a shop without payment_failed events, only the first sign is available.
--
-- The price limit excludes people who buy several presents one by one. Set it to the highest amount that your payment provider accepts without a second
-- factor. A person whose own card is declined tries three or four times, not six times in a minute.
--
-- rule: card-testing
-- summary: {user_id} tried {attempts} small payments in {sessions} sessions in a minute, {declined} declined
-- param: attempts = 5
-- param: price = 10
-- critical: COUNT(*) FILTER (WHERE event_type = 'purchase') > 0
-- runbook: https://owasp.org/www-project-automated-threats-to-web-applications/assets/oats/EN/OAT-001_Carding
INSERT INTO alerts
SELECT user_id, COUNT(DISTINCT txn_timestamp) AS attempts, COUNT(DISTINCT user_session) AS sessions,
       COUNT(DISTINCT txn_timestamp) FILTER (WHERE event_type = 'payment_failed') AS declined, MAX(price) AS largest
FROM activity
WHERE event_type IN ('purchase', 'payment_failed') AND price < ${price}
GROUP BY HOP(txn_timestamp, INTERVAL '10' SECOND, INTERVAL '1' MINUTE), user_id
HAVING COUNT(DISTINCT user_session) > ${attempts}
    OR COUNT(DISTINCT txn_timestamp) FILTER (WHERE event_type = 'payment_failed') > ${attempts};
