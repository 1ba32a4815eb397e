-- Coupon abuse: one person redeems a coupon for new customers in many accounts.
--
-- The key is a pair, (coupon, ip). By the coupon alone every good campaign would be flagged, and by the address alone every office. The accounts
-- are counted, not the orders, because a coupon that one account can redeem twice is the shop's own mistake.
--
-- Opening an account takes a while, hence windows of 10 minutes. One ends every 5 minutes, so that whatever happens within 5 minutes lies entirely
-- in one window, and an attack causes two alerts, not ten.
--
-- Colleagues and families share an address, too: keep the limit above the size of a family.
CREATE TABLE redemptions (
  event_type STRING, price DOUBLE, user_id BIGINT, ip STRING, coupon STRING, txn_timestamp TIMESTAMP(3),
  WATERMARK FOR txn_timestamp AS txn_timestamp - INTERVAL '10' SECOND
) WITH ('connector' = 'kafka', 'topic' = 'activity', 'format' = 'json');

-- rule: coupon-abuse
-- summary: {accounts} accounts at {ip} redeemed {coupon} in 10 minutes
-- param: accounts = 5
-- critical: COUNT(DISTINCT user_id) > 4 * ${accounts}
-- runbook: https://owasp.org/www-project-automated-threats-to-web-applications/assets/oats/EN/OAT-019_Account_Creation
INSERT INTO alerts
SELECT coupon, ip, COUNT(DISTINCT user_id) AS accounts, SUM(price) AS total
FROM redemptions
WHERE event_type = 'purchase' AND coupon IS NOT NULL AND ip IS NOT NULL
GROUP BY HOP(txn_timestamp, INTERVAL '5' MINUTE, INTERVAL '10' MINUTE), coupon, ip
HAVING COUNT(DISTINCT user_id) > ${accounts};
