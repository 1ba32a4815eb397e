package harness

// DecidingRules flag addresses and users.
const DecidingRules = `CREATE TABLE activity (user_id STRING, ip STRING, event_time TIMESTAMP(3), WATERMARK FOR event_time AS event_time - INTERVAL '10' SECOND);
-- rule: addresses
-- decision: challenge 10m
-- summary: {ip} did {n} things
INSERT INTO alerts
SELECT ip, COUNT(*) AS n
FROM TABLE(TUMBLE(TABLE activity, DESCRIPTOR(event_time), INTERVAL '10' SECOND))
GROUP BY ip, window_start, window_end
HAVING COUNT(*) > 5;
-- rule: burst
-- decision: block 1h
INSERT INTO alerts
SELECT user_id, COUNT(*) AS n
FROM TABLE(TUMBLE(TABLE activity, DESCRIPTOR(event_time), INTERVAL '10' SECOND))
GROUP BY user_id, window_start, window_end
HAVING COUNT(*) > 10;
`
