-- Finds coupon abuse: one person uses many accounts to redeem a coupon meant for new customers.
--
-- The key is the pair (coupon, ip). If the key were only the coupon, every successful campaign would be flagged; if it were only the address, every office
-- would be flagged. The rule counts accounts, not orders, because a shop that lets one account redeem a coupon twice has made a mistake of its own.
--
-- Opening an account takes some time, so the windows are 10 minutes long. A window ends every 5 minutes, so any attack that takes at most 5 minutes lies entirely
-- in at least one window. An attack raises about two alerts; with a window every minute, it would raise about ten.
--
-- Colleagues and families also share an address, so keep the limit above the size of a family.
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
