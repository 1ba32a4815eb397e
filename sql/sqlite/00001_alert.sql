-- +goose Up

-- One row an alert. Times are Unix milliseconds, UTC. first_event_ms .. evidence are those of the alert's newest state.
CREATE TABLE alert (
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

CREATE INDEX alert_window ON alert (window_start_ms, user_id);
CREATE INDEX alert_user ON alert (user_id, window_start_ms);

-- opened -> closed is the only move there is, whoever writes.
-- +goose StatementBegin
CREATE TRIGGER alert_moves_forward BEFORE UPDATE ON alert
WHEN OLD.state = 'closed' OR NEW.id <> OLD.id
BEGIN
    SELECT RAISE(ABORT, 'an alert that is closed does not change, and an id never does');
END;
-- +goose StatementEnd

-- +goose Down
DROP TABLE alert;
