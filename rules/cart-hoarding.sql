-- Cart hoarding: a cart is filled to keep the goods from others, and never paid for.
--
-- Different products, not clicks: impatient people add the same thing five times. The limit is high, and the window long, because people do fill
-- their carts. In a log of a cosmetics shop the fullest one got 23 products within 5 minutes, and was paid a quarter of an hour later.
--
-- As with scraper, `= 0` makes spate wait for the end of the window: a user who fills a cart may still pay. If your shop reserves goods that are in
-- a cart, a quick warning may be worth more than a quiet one: then leave the last line out.
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
