-- +goose Up

-- One row an alert. first_event_at .. evidence are those of the alert's newest state.
CREATE TABLE alert (
    id             TEXT COLLATE "C" NOT NULL PRIMARY KEY CHECK (id <> ''),
    rule           TEXT COLLATE "C" NOT NULL CHECK (rule <> ''),
    user_id        TEXT COLLATE "C" NOT NULL CHECK (user_id <> ''), -- canonical JSON token: 5 and "5" are two users
    state          TEXT COLLATE "C" NOT NULL CHECK (state IN ('opened', 'closed')),
    severity       TEXT COLLATE "C" NOT NULL CHECK (severity IN ('warning', 'critical')),
    count          BIGINT           NOT NULL CHECK (count > 0), -- exact when closed, a lower bound when opened
    threshold      BIGINT           NOT NULL CHECK (threshold >= 0),
    window_start   TIMESTAMPTZ      NOT NULL,
    window_end     TIMESTAMPTZ      NOT NULL CHECK (window_end > window_start),
    first_event_at TIMESTAMPTZ      NOT NULL,
    last_event_at  TIMESTAMPTZ      NOT NULL,
    evidence       JSONB            NOT NULL,
    opened_at      TIMESTAMPTZ      NOT NULL, -- when this database first heard of the alert
    closed_at      TIMESTAMPTZ,               -- when it heard of the final count
    CHECK ((state = 'closed') = (closed_at IS NOT NULL))
);

-- A user is as long as its event makes it, and an index entry is not: the beginning finds it. In collation C it also sorts like the whole.
CREATE INDEX alert_window ON alert (window_start, (left(user_id, 100)));
CREATE INDEX alert_user ON alert ((left(user_id, 100)), window_start);

-- opened -> closed is the only move there is, whoever writes.
-- +goose StatementBegin
CREATE FUNCTION alert_moves_forward() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state = 'closed' OR (NEW.id, NEW.rule, NEW.user_id, NEW.window_start, NEW.window_end)
        IS DISTINCT FROM (OLD.id, OLD.rule, OLD.user_id, OLD.window_start, OLD.window_end) THEN
        RAISE EXCEPTION 'an alert that is closed does not change, and what an alert is about never does' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END;
$$;
-- +goose StatementEnd
CREATE TRIGGER alert_moves_forward BEFORE UPDATE ON alert FOR EACH ROW EXECUTE FUNCTION alert_moves_forward();

-- +goose Down
DROP TABLE alert;
DROP FUNCTION alert_moves_forward();
