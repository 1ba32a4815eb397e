-- +goose Up

-- One row an incident: a run of alerts of one rule and key.
CREATE TABLE incident (
    id                 TEXT COLLATE "C" NOT NULL PRIMARY KEY CHECK (id <> ''),
    rule               TEXT COLLATE "C" NOT NULL CHECK (rule <> ''),
    mode               TEXT COLLATE "C" NOT NULL CHECK (mode IN ('', 'shadow')),
    key                TEXT COLLATE "C" NOT NULL CHECK (key <> ''), -- JSON object: key columns by name
    severity           TEXT COLLATE "C" NOT NULL CHECK (severity IN ('warning', 'critical')),
    summary            TEXT             NOT NULL,
    runbook            TEXT             NOT NULL,
    opened_at          TIMESTAMPTZ      NOT NULL, -- when this database first heard of it
    escalated_at       TIMESTAMPTZ,
    resolved_at        TIMESTAMPTZ,               -- none: it is open
    first_window_start TIMESTAMPTZ      NOT NULL,
    last_window_end    TIMESTAMPTZ      NOT NULL CHECK (last_window_end > first_window_start),
    windows            BIGINT           NOT NULL CHECK (windows > 0),
    events             BIGINT           NOT NULL, -- the sum of the counts of its windows
    peak               BIGINT           NOT NULL,
    escalations        INTEGER          NOT NULL CHECK (escalations >= 0),
    alert_id           TEXT COLLATE "C" NOT NULL, -- that opened it
    quiet_ms           BIGINT           NOT NULL CHECK (quiet_ms > 0), -- how far apart its windows are at most
    longest_ms         BIGINT           NOT NULL CHECK (longest_ms > 0), -- the longest of its windows
    due                TIMESTAMPTZ      NOT NULL, -- the event time at which it is over
    silenced           TEXT COLLATE "C" NOT NULL, -- the silence that kept people from being told of it; empty: none
    told               TEXT COLLATE "C" NOT NULL CHECK (told IN ('', 'warning', 'critical')), -- the severity at which people were last told; empty: a silence has held all the time
    mark               JSON                       -- what somebody found out: mark, note, by, at
);

-- A key is as long as its events make it, and many begin alike, as with a browser's name: the index has a digest of all of it.
CREATE INDEX incident_key ON incident (md5(key), rule, last_window_end);
CREATE INDEX incident_due ON incident (due) WHERE resolved_at IS NULL;
CREATE INDEX incident_window ON incident (first_window_start, id);

CREATE INDEX incident_opened ON incident (opened_at);
CREATE INDEX incident_silenced ON incident (silenced) WHERE silenced <> '';

-- The alerts of an incident, and what each has added to its events.
CREATE TABLE incident_alert (
    alert_id    TEXT COLLATE "C" NOT NULL PRIMARY KEY REFERENCES alert (id) ON DELETE CASCADE,
    incident_id TEXT COLLATE "C" NOT NULL REFERENCES incident (id) ON DELETE CASCADE,
    counted     BIGINT           NOT NULL
);

CREATE INDEX incident_alert_incident ON incident_alert (incident_id);

-- Times of the wall clock in which people are not told of incidents.
CREATE TABLE silence (
    id         TEXT COLLATE "C" NOT NULL PRIMARY KEY CHECK (id <> ''),
    rule       TEXT COLLATE "C" NOT NULL, -- empty: any
    key        JSONB            NOT NULL, -- columns and their values, as text; {}: any key
    since      TIMESTAMPTZ      NOT NULL,
    until      TIMESTAMPTZ      NOT NULL,
    author     TEXT             NOT NULL,
    reason     TEXT             NOT NULL,
    created_at TIMESTAMPTZ      NOT NULL
);

CREATE INDEX silence_until ON silence (until);

ALTER TABLE delivery
    ADD COLUMN incident_id TEXT COLLATE "C" REFERENCES incident (id) ON DELETE CASCADE,
    ADD COLUMN ref         TEXT, -- how the endpoint names what it made of the message
    DROP CONSTRAINT delivery_type_check,
    ADD CONSTRAINT delivery_type_check CHECK (type IN ('incident.opened', 'incident.escalated', 'incident.resolved', 'incident.digest', 'alert.opened', 'alert.raised', 'alert.closed', 'alert.digest')),
    DROP CONSTRAINT delivery_check3,
    ADD CONSTRAINT delivery_subject_check CHECK (num_nonnulls(alert_id, incident_id) = CASE WHEN type IN ('alert.digest', 'incident.digest') THEN 0 ELSE 1 END);

CREATE INDEX delivery_incident ON delivery (incident_id);

-- +goose Down
DELETE FROM delivery WHERE type LIKE 'incident.%';
DROP INDEX delivery_incident;
ALTER TABLE delivery
    DROP CONSTRAINT delivery_subject_check,
    DROP COLUMN incident_id,
    DROP COLUMN ref,
    DROP CONSTRAINT delivery_type_check,
    ADD CONSTRAINT delivery_type_check CHECK (type IN ('alert.opened', 'alert.raised', 'alert.closed', 'alert.digest')),
    ADD CONSTRAINT delivery_check3 CHECK ((type = 'alert.digest') = (alert_id IS NULL));
DROP TABLE silence;
DROP TABLE incident_alert;
DROP TABLE incident;
