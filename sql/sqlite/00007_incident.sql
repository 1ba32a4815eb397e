-- +goose Up

-- One row an incident: a run of alerts of one rule and key. Times are Unix milliseconds, UTC.
CREATE TABLE incident (
    id                    TEXT    NOT NULL PRIMARY KEY CHECK (id <> ''),
    rule                  TEXT    NOT NULL CHECK (rule <> ''),
    mode                  TEXT    NOT NULL CHECK (mode IN ('', 'shadow')),
    key                   TEXT    NOT NULL CHECK (json_valid(key)), -- JSON object: key columns by name
    severity              TEXT    NOT NULL CHECK (severity IN ('warning', 'critical')),
    summary               TEXT    NOT NULL,
    runbook               TEXT    NOT NULL,
    opened_at             INTEGER NOT NULL, -- when this database first heard of it
    escalated_at          INTEGER,
    resolved_at           INTEGER,          -- none: it is open
    first_window_start_ms INTEGER NOT NULL,
    last_window_end_ms    INTEGER NOT NULL CHECK (last_window_end_ms > first_window_start_ms),
    windows               INTEGER NOT NULL CHECK (windows > 0),
    events                INTEGER NOT NULL, -- the sum of the counts of its windows
    peak                  INTEGER NOT NULL,
    escalations           INTEGER NOT NULL CHECK (escalations >= 0),
    alert_id              TEXT    NOT NULL, -- that opened it
    quiet_ms              INTEGER NOT NULL CHECK (quiet_ms > 0), -- how far apart its windows are at most
    longest_ms            INTEGER NOT NULL CHECK (longest_ms > 0), -- the longest of its windows
    due_ms                INTEGER NOT NULL, -- the event time at which it is over
    silenced              TEXT    NOT NULL, -- the silence that kept people from being told of it; empty: none
    told                  TEXT    NOT NULL CHECK (told IN ('', 'warning', 'critical')), -- the severity at which people were last told; empty: a silence has held all the time
    mark                  TEXT    CHECK (json_valid(mark)) -- what somebody found out: mark, note, by, at
) STRICT;

CREATE INDEX incident_key ON incident (key, rule, last_window_end_ms);
CREATE INDEX incident_due ON incident (due_ms) WHERE resolved_at IS NULL;
CREATE INDEX incident_window ON incident (first_window_start_ms, id);

CREATE INDEX incident_opened ON incident (opened_at);
CREATE INDEX incident_silenced ON incident (silenced) WHERE silenced <> '';

-- The alerts of an incident, and what each has added to its events.
CREATE TABLE incident_alert (
    alert_id    TEXT    NOT NULL PRIMARY KEY REFERENCES alert (id) ON DELETE CASCADE,
    incident_id TEXT    NOT NULL REFERENCES incident (id) ON DELETE CASCADE,
    counted     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX incident_alert_incident ON incident_alert (incident_id);

-- Times of the wall clock in which people are not told of incidents.
CREATE TABLE silence (
    id         TEXT    NOT NULL PRIMARY KEY CHECK (id <> ''),
    rule       TEXT    NOT NULL, -- empty: any
    key        TEXT    NOT NULL CHECK (json_valid(key)), -- columns and their values, as text; {}: any key
    since      INTEGER NOT NULL,
    until      INTEGER NOT NULL,
    author     TEXT    NOT NULL,
    reason     TEXT    NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE INDEX silence_until ON silence (until);

-- Messages are about incidents, too. SQLite cannot change a CHECK, so the table is made anew, with the one that refers to it.
CREATE TABLE delivery_new (
    webhook_id TEXT    NOT NULL CHECK (webhook_id <> ''), -- id of the alert or incident, and transition, or that of a digest
    endpoint   TEXT    NOT NULL CHECK (endpoint <> ''),
    alert_id   TEXT    REFERENCES alert (id) ON DELETE CASCADE, -- none: a digest
    incident_id TEXT   REFERENCES incident (id) ON DELETE CASCADE,
    type       TEXT    NOT NULL CHECK (type IN ('incident.opened', 'incident.escalated', 'incident.resolved', 'incident.digest', 'alert.opened', 'alert.raised', 'alert.closed', 'alert.digest')),
    state      TEXT    NOT NULL CHECK (state IN ('pending', 'held', 'delivered', 'exhausted', 'disabled')),
    tries      INTEGER NOT NULL DEFAULT 0 CHECK (tries >= 0),
    counted    INTEGER NOT NULL DEFAULT 0 CHECK (counted BETWEEN 0 AND tries), -- tries that went by the schedule
    created_at INTEGER NOT NULL,
    begun_at   INTEGER NOT NULL, -- when the schedule began: created_at, or the last time it was sent again
    next_at    INTEGER, -- when it is due
    digest     TEXT,    -- webhook_id of the digest that it goes with
    data       TEXT,    -- as it is sent; none: held, or a digest that has not ended
    ref        TEXT,    -- how the endpoint names what it made of the message
    PRIMARY KEY (webhook_id, endpoint),
    CHECK ((state = 'pending') = (next_at IS NOT NULL)),
    CHECK ((state = 'held') = (digest IS NOT NULL)),
    CHECK ((alert_id IS NOT NULL) + (incident_id IS NOT NULL) = (type NOT IN ('alert.digest', 'incident.digest')))
) STRICT;
INSERT INTO delivery_new (webhook_id, endpoint, alert_id, type, state, tries, counted, created_at, begun_at, next_at, digest, data)
SELECT webhook_id, endpoint, alert_id, type, state, tries, counted, created_at, begun_at, next_at, digest, data FROM delivery;

CREATE TABLE delivery_try_new (
    webhook_id TEXT    NOT NULL,
    endpoint   TEXT    NOT NULL,
    n          INTEGER NOT NULL CHECK (n > 0), -- counts from 1
    at         INTEGER NOT NULL,
    status     INTEGER NOT NULL CHECK (status >= 0), -- HTTP status of the answer; 0: none
    outcome    TEXT    NOT NULL CHECK (outcome IN ('delivered', 'failed', 'throttled', 'gone', 'exhausted')),
    reason     TEXT    NOT NULL,
    took_ms    INTEGER NOT NULL CHECK (took_ms >= 0),
    next_at    INTEGER, -- when the next try is due
    PRIMARY KEY (webhook_id, endpoint, n),
    FOREIGN KEY (webhook_id, endpoint) REFERENCES delivery_new (webhook_id, endpoint) ON DELETE CASCADE,
    CHECK ((outcome IN ('failed', 'throttled')) = (next_at IS NOT NULL))
) STRICT;
INSERT INTO delivery_try_new (webhook_id, endpoint, n, at, status, outcome, reason, took_ms, next_at)
SELECT webhook_id, endpoint, n, at, status, outcome, reason, took_ms, next_at FROM delivery_try;

DROP TABLE delivery_try;
DROP TABLE delivery;
ALTER TABLE delivery_new RENAME TO delivery;
ALTER TABLE delivery_try_new RENAME TO delivery_try;

CREATE INDEX delivery_alert ON delivery (alert_id);
CREATE INDEX delivery_incident ON delivery (incident_id);
CREATE INDEX delivery_digest ON delivery (digest) WHERE digest IS NOT NULL;
CREATE INDEX delivery_open ON delivery (endpoint, state) WHERE state IN ('pending', 'exhausted', 'disabled');
CREATE INDEX delivery_try_at ON delivery_try (at);

-- +goose Down
DELETE FROM delivery WHERE type LIKE 'incident.%';
CREATE TABLE delivery_new (
    webhook_id TEXT    NOT NULL CHECK (webhook_id <> ''), -- alert id and transition, or that of a digest
    endpoint   TEXT    NOT NULL CHECK (endpoint <> ''),
    alert_id   TEXT    REFERENCES alert (id) ON DELETE CASCADE, -- none: a digest
    type       TEXT    NOT NULL CHECK (type IN ('alert.opened', 'alert.raised', 'alert.closed', 'alert.digest')),
    state      TEXT    NOT NULL CHECK (state IN ('pending', 'held', 'delivered', 'exhausted', 'disabled')),
    tries      INTEGER NOT NULL DEFAULT 0 CHECK (tries >= 0),
    counted    INTEGER NOT NULL DEFAULT 0 CHECK (counted BETWEEN 0 AND tries), -- tries that went by the schedule
    created_at INTEGER NOT NULL,
    begun_at   INTEGER NOT NULL, -- when the schedule began: created_at, or the last time it was sent again
    next_at    INTEGER, -- when it is due
    digest     TEXT,    -- webhook_id of the digest that it goes with
    data       TEXT,    -- as it is sent; none: held, or a digest that has not ended
    PRIMARY KEY (webhook_id, endpoint),
    CHECK ((state = 'pending') = (next_at IS NOT NULL)),
    CHECK ((state = 'held') = (digest IS NOT NULL)),
    CHECK ((type = 'alert.digest') = (alert_id IS NULL))
) STRICT;
INSERT INTO delivery_new (webhook_id, endpoint, alert_id, type, state, tries, counted, created_at, begun_at, next_at, digest, data)
SELECT webhook_id, endpoint, alert_id, type, state, tries, counted, created_at, begun_at, next_at, digest, data FROM delivery;

CREATE TABLE delivery_try_new (
    webhook_id TEXT    NOT NULL,
    endpoint   TEXT    NOT NULL,
    n          INTEGER NOT NULL CHECK (n > 0), -- counts from 1
    at         INTEGER NOT NULL,
    status     INTEGER NOT NULL CHECK (status >= 0), -- HTTP status of the answer; 0: none
    outcome    TEXT    NOT NULL CHECK (outcome IN ('delivered', 'failed', 'throttled', 'gone', 'exhausted')),
    reason     TEXT    NOT NULL,
    took_ms    INTEGER NOT NULL CHECK (took_ms >= 0),
    next_at    INTEGER, -- when the next try is due
    PRIMARY KEY (webhook_id, endpoint, n),
    FOREIGN KEY (webhook_id, endpoint) REFERENCES delivery_new (webhook_id, endpoint) ON DELETE CASCADE,
    CHECK ((outcome IN ('failed', 'throttled')) = (next_at IS NOT NULL))
) STRICT;
INSERT INTO delivery_try_new (webhook_id, endpoint, n, at, status, outcome, reason, took_ms, next_at)
SELECT webhook_id, endpoint, n, at, status, outcome, reason, took_ms, next_at FROM delivery_try;

DROP TABLE delivery_try;
DROP TABLE delivery;
ALTER TABLE delivery_new RENAME TO delivery;
ALTER TABLE delivery_try_new RENAME TO delivery_try;

CREATE INDEX delivery_alert ON delivery (alert_id);
CREATE INDEX delivery_digest ON delivery (digest) WHERE digest IS NOT NULL;
CREATE INDEX delivery_open ON delivery (endpoint, state) WHERE state IN ('pending', 'exhausted', 'disabled');
CREATE INDEX delivery_try_at ON delivery_try (at);

DROP TABLE silence;
DROP TABLE incident_alert;
DROP TABLE incident;
