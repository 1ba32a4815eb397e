-- Finds scrapers, which view many different products and buy none.
--
-- The rule counts different products, not views, because a person who compares products views the same few again and again. Scrapers know the rate limits and stay below
-- them (5 pages in 10 seconds are 30 a minute), so the rule `burst` does not detect them. Unlike people, they do not return to the same products.
--
-- Windows are a minute long and begin every 10 seconds, so scraping that takes at most 50 seconds always lies entirely in one window.
--
-- Without the last condition (AND …), the rule opens an alert as soon as the limit is exceeded. With it, spate waits for the end of the window, because a visitor may
-- still buy; `spate rules check` reports this. People who browse a lot and then buy are the shop's best customers, so the wait is worthwhile.
--
-- rule: scraper
-- summary: {user_id} looked at {products} products in a minute and bought nothing
-- param: products = 20
-- critical: COUNT(DISTINCT product_id) FILTER (WHERE event_type = 'view') > 3 * ${products}
-- runbook: https://owasp.org/www-project-automated-threats-to-web-applications/assets/oats/EN/OAT-011_Scraping
INSERT INTO alerts
SELECT user_id, COUNT(DISTINCT product_id) FILTER (WHERE event_type = 'view') AS products, COUNT(DISTINCT user_session) AS sessions
FROM activity
GROUP BY HOP(txn_timestamp, INTERVAL '10' SECOND, INTERVAL '1' MINUTE), user_id
HAVING COUNT(DISTINCT product_id) FILTER (WHERE event_type = 'view') > ${products}
   AND COUNT(*) FILTER (WHERE event_type = 'purchase') = 0;
