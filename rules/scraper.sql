-- A scraper: it looks at many different products and buys none.
--
-- Different products, not views: a person who compares looks at the same few again and again. Scrapers know the limits on speed and stay below
-- them (5 pages in 10 seconds are 30 a minute), so burst does not see them: what gives them away is that nothing repeats.
--
-- Windows last a minute and begin every 10 seconds, so that 50 seconds of scraping always lie entirely in one window.
--
-- Without the last line the rule opens an alert as soon as the limit is passed. With it, spate waits for the end of the window: a visitor may
-- still buy. `spate rules check` says so. Those who browse a lot and buy are the shop's best customers, so the wait is worth it.
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
