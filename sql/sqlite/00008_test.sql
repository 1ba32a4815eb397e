-- +goose Up

-- A message can be a test of its endpoint, which is about no alert or incident. SQLite cannot change a CHECK, so the table is made anew, with the one that refers to it.
CREATE TABLE delivery_new (
    webhook_id TEXT    NOT NULL CHECK (webhook_id <> ''), -- id of the alert or incident, and transition, or that of a digest or a test
    endpoint   TEXT    NOT NULL CHECK (endpoint <> ''),
    alert_id   TEXT    REFERENCES alert (id) ON DELETE CASCADE,
    incident_id TEXT   REFERENCES incident (id) ON DELETE CASCADE,
    type       TEXT    NOT NULL CHECK (type IN ('incident.opened', 'incident.escalated', 'incident.resolved', 'incident.digest', 'alert.opened', 'alert.raised', 'alert.closed', 'alert.digest', 'endpoint.test')),
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
    CHECK ((alert_id IS NOT NULL) + (incident_id IS NOT NULL) = (type NOT IN ('alert.digest', 'incident.digest', 'endpoint.test')))
) STRICT;
INSERT INTO delivery_new (webhook_id, endpoint, alert_id, incident_id, type, state, tries, counted, created_at, begun_at, next_at, digest, data, ref)
SELECT webhook_id, endpoint, alert_id, incident_id, type, state, tries, counted, created_at, begun_at, next_at, digest, data, ref FROM delivery;

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
DELETE FROM delivery WHERE type = 'endpoint.test';
CREATE TABLE delivery_new (
    webhook_id TEXT    NOT NULL CHECK (webhook_id <> ''), -- id of the alert or incident, and transition, or that of a digest
    endpoint   TEXT    NOT NULL CHECK (endpoint <> ''),
    alert_id   TEXT    REFERENCES alert (id) ON DELETE CASCADE,
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
INSERT INTO delivery_new (webhook_id, endpoint, alert_id, incident_id, type, state, tries, counted, created_at, begun_at, next_at, digest, data, ref)
SELECT webhook_id, endpoint, alert_id, incident_id, type, state, tries, counted, created_at, begun_at, next_at, digest, data, ref FROM delivery;

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
