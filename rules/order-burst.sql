-- Finds orders with many lines. Such an order is not an attack. This rule shows the orders that the rule `burst` ignores, and how many there are.
--
-- The rule is in shadow mode: its alerts are stored, but nobody is notified. Look at the alerts before you loosen or tighten the rule `burst`. Turn this rule off when you no longer
-- need it. If somebody does place abusive orders (resellers, stolen cards), raise the parameter `lines` and set the mode to live.
--
-- The rule groups events by session and second, because a shop writes all lines of an order at once. Two orders in the same second count separately only if they
-- belong to different sessions.
--
-- rule: order-burst
-- mode: shadow
-- summary: {user_id} ordered {lines} lines at once, for {total}
-- param: lines = 5
INSERT INTO alerts
SELECT user_id, user_session, COUNT(*) AS lines, COUNT(DISTINCT product_id) AS products, SUM(price) AS total
FROM activity
WHERE event_type = 'purchase'
GROUP BY TUMBLE(txn_timestamp, INTERVAL '1' SECOND), user_id, user_session
HAVING COUNT(*) > ${lines};
