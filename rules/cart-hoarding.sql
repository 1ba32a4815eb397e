-- Finds cart hoarding: an attacker fills a cart to keep the goods from other customers, and never pays.
--
-- The rule counts different products, not clicks, because impatient people add the same product five times. The limit is high and the window is long, because
-- ordinary customers also fill their carts. In a log from a cosmetics shop, the fullest cart received 23 products within 5 minutes, and the customer paid a quarter of an hour later.
--
-- As in the rule `scraper`, the condition `= 0` makes spate wait for the end of the window, because a user who fills a cart may still pay. If your shop reserves
-- the goods in a cart, an early alert may be worth some false alarms. In that case, remove the last condition (AND …).
--
-- rule: cart-hoarding
-- summary: {user_id} put {products} products in the cart in 5 minutes and bought nothing
-- param: products = 30
-- critical: COUNT(DISTINCT product_id) FILTER (WHERE event_type = 'cart') > 3 * ${products}
-- runbook: https://owasp.org/www-project-automated-threats-to-web-applications/assets/oats/EN/OAT-021_Denial_of_Inventory
INSERT INTO alerts
SELECT user_id, COUNT(DISTINCT product_id) FILTER (WHERE event_type = 'cart') AS products, COUNT(DISTINCT user_session) AS sessions
FROM activity
GROUP BY HOP(txn_timestamp, INTERVAL '1' MINUTE, INTERVAL '5' MINUTE), user_id
HAVING COUNT(DISTINCT product_id) FILTER (WHERE event_type = 'cart') > ${products}
   AND COUNT(*) FILTER (WHERE event_type = 'purchase') = 0;
