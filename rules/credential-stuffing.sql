-- Credential stuffing and password guessing are two sides of one attack, and each rule is blind to the other side.
--
--   credential-stuffing  one address tries the passwords of many accounts, leaked elsewhere. Each account has one or two failures, which is nothing.
--   password-guessing    many addresses try passwords of one account. Each address has one failure, which is nothing.
--
-- Count accounts that failed, not logins: behind the address of an office, a school or a mobile network hundreds of people sign in, and some
-- mistype. If such an address passes the limit anyway, add a list of exemptions instead of raising the limit for all.
--
-- These events have fields that the built-in table does not have, so the file declares a table of its own. It reads the same topic: change the name if yours
-- differs, or the connector to 'kinesis' and 'topic' to 'stream'. spate needs a user in every event: for a login, the account that was tried.
CREATE TABLE logins (
  event_type STRING, user_id BIGINT, ip STRING, user_agent STRING, txn_timestamp TIMESTAMP(3),
  WATERMARK FOR txn_timestamp AS txn_timestamp - INTERVAL '10' SECOND
) WITH ('connector' = 'kafka', 'topic' = 'activity', 'format' = 'json');

-- Critical as soon as one login from the address succeeds: then an account is lost. `entered` counts the lost accounts: lock them first.
--
-- rule: credential-stuffing
-- summary: {ip} failed to sign in to {accounts} accounts in a minute, and got into {entered}
-- param: accounts = 10
-- critical: COUNT(*) FILTER (WHERE event_type = 'login') > 0
-- runbook: https://owasp.org/www-project-automated-threats-to-web-applications/assets/oats/EN/OAT-008_Credential_Stuffing
INSERT INTO alerts
SELECT ip, COUNT(DISTINCT user_id) FILTER (WHERE event_type = 'login_failed') AS accounts,
       COUNT(DISTINCT user_id) FILTER (WHERE event_type = 'login') AS entered, MIN(user_agent) AS user_agent
FROM logins
WHERE event_type IN ('login', 'login_failed') AND ip IS NOT NULL
GROUP BY HOP(txn_timestamp, INTERVAL '10' SECOND, INTERVAL '1' MINUTE), ip
HAVING COUNT(DISTINCT user_id) FILTER (WHERE event_type = 'login_failed') > ${accounts};

-- rule: password-guessing
-- summary: {failures} wrong passwords for {user_id} in a minute, from {addresses} addresses
-- param: failures = 8
-- critical: COUNT(DISTINCT ip) > ${failures}
-- runbook: https://owasp.org/www-project-automated-threats-to-web-applications/assets/oats/EN/OAT-007_Credential_Cracking
INSERT INTO alerts
SELECT user_id, COUNT(*) AS failures, COUNT(DISTINCT ip) AS addresses
FROM logins
WHERE event_type = 'login_failed'
GROUP BY HOP(txn_timestamp, INTERVAL '10' SECOND, INTERVAL '1' MINUTE), user_id
HAVING COUNT(*) > ${failures};
