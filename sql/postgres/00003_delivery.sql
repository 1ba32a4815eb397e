-- +goose Up

-- River makes these two for whoever searches jobs by their contents, which nobody does here. They cost half of what adding a job does.
DROP INDEX IF EXISTS river_job_args_index;
DROP INDEX IF EXISTS river_job_metadata_index;

-- One row a message and endpoint: what is to be told, and how far that is.
CREATE TABLE delivery (
    webhook_id TEXT COLLATE "C" NOT NULL CHECK (webhook_id <> ''), -- alert id and transition, or that of a digest
    endpoint   TEXT COLLATE "C" NOT NULL CHECK (endpoint <> ''),
    alert_id   TEXT COLLATE "C" REFERENCES alert (id) ON DELETE CASCADE, -- none: a digest
    type       TEXT COLLATE "C" NOT NULL CHECK (type IN ('alert.opened', 'alert.closed', 'alert.digest')),
    state      TEXT COLLATE "C" NOT NULL CHECK (state IN ('pending', 'held', 'delivered', 'exhausted', 'disabled')),
    tries      INTEGER          NOT NULL DEFAULT 0 CHECK (tries >= 0),
    counted    INTEGER          NOT NULL DEFAULT 0 CHECK (counted BETWEEN 0 AND tries), -- tries that went by the schedule
    created_at TIMESTAMPTZ      NOT NULL,
    begun_at   TIMESTAMPTZ      NOT NULL, -- when the schedule began: created_at, or the last time it was sent again
    next_at    TIMESTAMPTZ, -- when it is due
    digest     TEXT COLLATE "C", -- webhook_id of the digest that it goes with
    data       TEXT, -- as it is sent; none: held, or a digest that has not ended
    PRIMARY KEY (webhook_id, endpoint),
    CHECK ((state = 'pending') = (next_at IS NOT NULL)),
    CHECK ((state = 'held') = (digest IS NOT NULL)),
    CHECK ((type = 'alert.digest') = (alert_id IS NULL))
);

CREATE INDEX delivery_alert ON delivery (alert_id);
CREATE INDEX delivery_digest ON delivery (digest) WHERE digest IS NOT NULL;
CREATE INDEX delivery_open ON delivery (endpoint, state) WHERE state IN ('pending', 'exhausted', 'disabled');

-- One row a try. It is written after the try: a crash between the two makes one more try, under the same webhook_id.
CREATE TABLE delivery_try (
    webhook_id TEXT COLLATE "C" NOT NULL,
    endpoint   TEXT COLLATE "C" NOT NULL,
    n          INTEGER          NOT NULL CHECK (n > 0), -- counts from 1
    at         TIMESTAMPTZ      NOT NULL,
    status     INTEGER          NOT NULL CHECK (status >= 0), -- HTTP status of the answer; 0: none
    outcome    TEXT COLLATE "C" NOT NULL CHECK (outcome IN ('delivered', 'failed', 'throttled', 'gone', 'exhausted')),
    reason     TEXT             NOT NULL,
    took_ms    BIGINT           NOT NULL CHECK (took_ms >= 0),
    next_at    TIMESTAMPTZ, -- when the next try is due
    PRIMARY KEY (webhook_id, endpoint, n),
    FOREIGN KEY (webhook_id, endpoint) REFERENCES delivery (webhook_id, endpoint) ON DELETE CASCADE,
    CHECK ((outcome IN ('failed', 'throttled')) = (next_at IS NOT NULL))
);

CREATE INDEX delivery_try_at ON delivery_try (at);

-- The messages of an endpoint in a minute, for flood control.
CREATE TABLE digest (
    webhook_id TEXT COLLATE "C" NOT NULL PRIMARY KEY, -- of the digest that there may come to be
    since      TIMESTAMPTZ      NOT NULL,
    ordinary   BIGINT           NOT NULL CHECK (ordinary > 0), -- messages that count
    sealed     BOOLEAN          NOT NULL DEFAULT false -- the digest has been made: nothing is held for it any more
);

-- Endpoints that were ever disabled. Those that are not here are enabled.
CREATE TABLE endpoint (
    name        TEXT COLLATE "C" NOT NULL PRIMARY KEY CHECK (name <> ''),
    disabled_at TIMESTAMPTZ, -- none: enabled
    reason      TEXT NOT NULL
);

-- +goose Down
DROP TABLE endpoint;
DROP TABLE digest;
DROP TABLE delivery_try;
DROP TABLE delivery;
