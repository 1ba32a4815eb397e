-- An order with many lines. This is not an attack: the rule is here so that you can see what the rule burst leaves out, and how much.
--
-- In shadow mode, its alerts are stored, and nobody is notified. Look at them before you loosen or tighten burst, and turn the rule off when you have seen enough.
-- If somebody does place abusive orders (resellers, stolen cards), raise lines and set the mode to live.
--
-- The group is a session within one second: a shop writes all lines of an order at once. Two orders in one second count as two only if they
-- belong to two sessions.
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
