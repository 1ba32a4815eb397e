-- +goose Up

-- Alerts of any rule: user_id is the token of the key. key, of key columns by name, and columns, the SELECT list, are JSON objects and not JSONB,
-- which would lose the order of the columns, the sign of -0.0 and strings with \u0000. Alerts of the rule without a rules file have neither.
ALTER TABLE alert
    ADD COLUMN key           JSON,
    ADD COLUMN columns       JSON,
    ADD COLUMN at_least      BOOLEAN NOT NULL DEFAULT false, -- some column is a lower bound
    ADD COLUMN rule_revision BIGINT  NOT NULL DEFAULT 0,
    ADD COLUMN mode          TEXT COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN previous      TEXT COLLATE "C" NOT NULL DEFAULT '', -- the state before the last move, which whoever makes it has to know; empty: none
    ADD CHECK (rule_revision >= 0),
    ADD CHECK (mode IN ('', 'shadow')),
    ADD CHECK ((key IS NULL) = (columns IS NULL)),
    DROP CONSTRAINT alert_state_check,
    ADD CONSTRAINT alert_state_check CHECK (state IN ('opened', 'raised', 'closed'));

CREATE INDEX alert_rule ON alert (rule, window_start);

ALTER TABLE delivery
    DROP CONSTRAINT delivery_type_check,
    ADD CONSTRAINT delivery_type_check CHECK (type IN ('alert.opened', 'alert.raised', 'alert.closed', 'alert.digest'));

-- opened -> raised -> closed, of which any may be left out, are the only moves there are, whoever writes.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION alert_moves_forward() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state = 'closed' OR OLD.state = 'raised' AND NEW.state = 'opened' OR (NEW.id, NEW.rule, NEW.user_id, NEW.window_start, NEW.window_end)
        IS DISTINCT FROM (OLD.id, OLD.rule, OLD.user_id, OLD.window_start, OLD.window_end) THEN
        RAISE EXCEPTION 'an alert that is closed does not change, none moves back, and what an alert is about never changes' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END;
$$;
-- +goose StatementEnd

-- +goose Down
DELETE FROM alert WHERE key IS NOT NULL;
DELETE FROM delivery WHERE type = 'alert.raised';
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION alert_moves_forward() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state = 'closed' OR (NEW.id, NEW.rule, NEW.user_id, NEW.window_start, NEW.window_end)
        IS DISTINCT FROM (OLD.id, OLD.rule, OLD.user_id, OLD.window_start, OLD.window_end) THEN
        RAISE EXCEPTION 'an alert that is closed does not change, and what an alert is about never does' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END;
$$;
-- +goose StatementEnd
UPDATE alert SET state = 'opened' WHERE state = 'raised';
DROP INDEX alert_rule;
ALTER TABLE delivery DROP CONSTRAINT delivery_type_check, ADD CONSTRAINT delivery_type_check CHECK (type IN ('alert.opened', 'alert.closed', 'alert.digest'));
ALTER TABLE alert DROP CONSTRAINT alert_state_check, ADD CONSTRAINT alert_state_check CHECK (state IN ('opened', 'closed')),
    DROP COLUMN key, DROP COLUMN columns, DROP COLUMN at_least, DROP COLUMN rule_revision, DROP COLUMN mode, DROP COLUMN previous;
