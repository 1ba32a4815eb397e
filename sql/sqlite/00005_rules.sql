-- +goose Up

-- Alerts of any rule. SQLite cannot change the states that a CHECK knows, so the tables are made anew, with those that refer to them: children are
-- dropped first, for a parent that is dropped takes its children's rows along.
CREATE TABLE alert_new (
    id              TEXT    NOT NULL PRIMARY KEY CHECK (id <> ''),
    rule            TEXT    NOT NULL CHECK (rule <> ''),
    user_id         TEXT    NOT NULL CHECK (user_id <> ''), -- canonical JSON token of the user, or of the key: 5 and "5" are two users
    state           TEXT    NOT NULL CHECK (state IN ('opened', 'raised', 'closed')),
    severity        TEXT    NOT NULL CHECK (severity IN ('warning', 'critical')),
    count           INTEGER NOT NULL CHECK (count > 0), -- exact when closed, a lower bound before
    threshold       INTEGER NOT NULL CHECK (threshold >= 0),
    window_start_ms INTEGER NOT NULL,
    window_end_ms   INTEGER NOT NULL CHECK (window_end_ms > window_start_ms),
    first_event_ms  INTEGER NOT NULL,
    last_event_ms   INTEGER NOT NULL,
    evidence        TEXT    NOT NULL CHECK (json_valid(evidence)),
    opened_at       INTEGER NOT NULL, -- when this database first heard of the alert
    closed_at       INTEGER,          -- when it heard of the final count
    key             TEXT    CHECK (json_valid(key)),     -- JSON object: key columns by name; none: the rule without a rules file
    columns         TEXT    CHECK (json_valid(columns)), -- JSON object: the SELECT list, in order
    at_least        INTEGER NOT NULL DEFAULT 0 CHECK (at_least IN (0, 1)), -- some column is a lower bound
    rule_revision   INTEGER NOT NULL DEFAULT 0 CHECK (rule_revision >= 0),
    mode            TEXT    NOT NULL DEFAULT '' CHECK (mode IN ('', 'shadow')),
    CHECK ((key IS NULL) = (columns IS NULL)),
    CHECK ((state = 'closed') = (closed_at IS NOT NULL))
) STRICT;
INSERT INTO alert_new (id, rule, user_id, state, severity, count, threshold, window_start_ms, window_end_ms, first_event_ms, last_event_ms, evidence, opened_at, closed_at)
SELECT id, rule, user_id, state, severity, count, threshold, window_start_ms, window_end_ms, first_event_ms, last_event_ms, evidence, opened_at, closed_at FROM alert;

CREATE TABLE delivery_new (
    webhook_id TEXT    NOT NULL CHECK (webhook_id <> ''), -- alert id and transition, or that of a digest
    endpoint   TEXT    NOT NULL CHECK (endpoint <> ''),
    alert_id   TEXT    REFERENCES alert_new (id) ON DELETE CASCADE, -- none: a digest
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
DROP TABLE alert;
ALTER TABLE alert_new RENAME TO alert;
ALTER TABLE delivery_new RENAME TO delivery;
ALTER TABLE delivery_try_new RENAME TO delivery_try;

CREATE INDEX alert_window ON alert (window_start_ms, user_id);
CREATE INDEX alert_user ON alert (user_id, window_start_ms);
CREATE INDEX alert_rule ON alert (rule, window_start_ms);
CREATE INDEX delivery_alert ON delivery (alert_id);
CREATE INDEX delivery_digest ON delivery (digest) WHERE digest IS NOT NULL;
CREATE INDEX delivery_open ON delivery (endpoint, state) WHERE state IN ('pending', 'exhausted', 'disabled');
CREATE INDEX delivery_try_at ON delivery_try (at);

-- opened -> raised -> closed, of which any may be left out, are the only moves there are, whoever writes.
-- +goose StatementBegin
CREATE TRIGGER alert_moves_forward BEFORE UPDATE ON alert
WHEN OLD.state = 'closed' OR OLD.state = 'raised' AND NEW.state = 'opened' OR NEW.id <> OLD.id
BEGIN
    SELECT RAISE(ABORT, 'an alert that is closed does not change, none moves back, and an id never changes');
END;
-- +goose StatementEnd

-- +goose Down
DELETE FROM alert WHERE key IS NOT NULL;
DELETE FROM delivery WHERE type = 'alert.raised';
DROP TRIGGER alert_moves_forward;
UPDATE alert SET state = 'opened' WHERE state = 'raised';

CREATE TABLE alert_new (
    id              TEXT    NOT NULL PRIMARY KEY CHECK (id <> ''),
    rule            TEXT    NOT NULL CHECK (rule <> ''),
    user_id         TEXT    NOT NULL CHECK (user_id <> ''), -- canonical JSON token: 5 and "5" are two users
    state           TEXT    NOT NULL CHECK (state IN ('opened', 'closed')),
    severity        TEXT    NOT NULL CHECK (severity IN ('warning', 'critical')),
    count           INTEGER NOT NULL CHECK (count > 0), -- exact when closed, a lower bound when opened
    threshold       INTEGER NOT NULL CHECK (threshold >= 0),
    window_start_ms INTEGER NOT NULL,
    window_end_ms   INTEGER NOT NULL CHECK (window_end_ms > window_start_ms),
    first_event_ms  INTEGER NOT NULL,
    last_event_ms   INTEGER NOT NULL,
    evidence        TEXT    NOT NULL CHECK (json_valid(evidence)),
    opened_at       INTEGER NOT NULL, -- when this database first heard of the alert
    closed_at       INTEGER,          -- when it heard of the final count
    CHECK ((state = 'closed') = (closed_at IS NOT NULL))
) STRICT;
INSERT INTO alert_new (id, rule, user_id, state, severity, count, threshold, window_start_ms, window_end_ms, first_event_ms, last_event_ms, evidence, opened_at, closed_at)
SELECT id, rule, user_id, state, severity, count, threshold, window_start_ms, window_end_ms, first_event_ms, last_event_ms, evidence, opened_at, closed_at FROM alert;

CREATE TABLE delivery_new (
    webhook_id TEXT    NOT NULL CHECK (webhook_id <> ''), -- alert id and transition, or that of a digest
    endpoint   TEXT    NOT NULL CHECK (endpoint <> ''),
    alert_id   TEXT    REFERENCES alert_new (id) ON DELETE CASCADE, -- none: a digest
    type       TEXT    NOT NULL CHECK (type IN ('alert.opened', 'alert.closed', 'alert.digest')),
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
DROP TABLE alert;
ALTER TABLE alert_new RENAME TO alert;
ALTER TABLE delivery_new RENAME TO delivery;
ALTER TABLE delivery_try_new RENAME TO delivery_try;

CREATE INDEX alert_window ON alert (window_start_ms, user_id);
CREATE INDEX alert_user ON alert (user_id, window_start_ms);
CREATE INDEX delivery_alert ON delivery (alert_id);
CREATE INDEX delivery_digest ON delivery (digest) WHERE digest IS NOT NULL;
CREATE INDEX delivery_open ON delivery (endpoint, state) WHERE state IN ('pending', 'exhausted', 'disabled');
CREATE INDEX delivery_try_at ON delivery_try (at);

-- +goose StatementBegin
CREATE TRIGGER alert_moves_forward BEFORE UPDATE ON alert
WHEN OLD.state = 'closed' OR NEW.id <> OLD.id
BEGIN
    SELECT RAISE(ABORT, 'an alert that is closed does not change, and an id never does');
END;
-- +goose StatementEnd
