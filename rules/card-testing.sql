-- Card testing: stolen card numbers are tried with small payments, to find those that work.
--
-- It shows in two ways, and either is enough:
--   * many small payments, each in a session of its own: every card needs a fresh checkout. The lines of one order share a session, so an order,
--     however long, is one;
--   * many declined payments. They are counted by moments, because a payment that is reported twice is one attempt.
-- A shop without payment_failed events has the first way only.
--
-- The limit on the price keeps out people who buy presents, one by one. Set it to what your payment provider lets through without a second
-- factor. Somebody whose own card is declined tries three or four times, not six in a minute.
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
