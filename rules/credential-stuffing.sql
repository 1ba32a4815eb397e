-- Finds credential stuffing and password guessing, two forms of attack on logins. Each rule detects only one of them:
--
--   credential-stuffing  One address tries leaked passwords for many accounts. Each account has only one or two failures, which is inconspicuous.
--   password-guessing    Many addresses try passwords for one account. Each address has only one failure, which is inconspicuous.
--
-- The rule `credential-stuffing` counts the accounts with failed logins, not the logins: hundreds of people log in from the address of an office, a school or a mobile
-- network, and some mistype their passwords. If such an address still exceeds the limit, add a list of exemptions instead of raising the limit for all addresses.
--
-- These events have fields that the built-in table lacks, so the file declares its own table on the same topic. If your topic has another name, change
-- the name; for Kinesis, change the connector to 'kinesis' and 'topic' to 'stream'. spate needs a user in every event: for a login, the user is the account that was tried.
CREATE TABLE logins (
  event_type STRING, user_id BIGINT, ip STRING, user_agent STRING, txn_timestamp TIMESTAMP(3),
  WATERMARK FOR txn_timestamp AS txn_timestamp - INTERVAL '10' SECOND
) WITH ('connector' = 'kafka', 'topic' = 'activity', 'format' = 'json');

-- An alert is critical as soon as one login from the address succeeds, because that account is then compromised. `entered` counts the compromised accounts. Lock
-- these accounts first.
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
