-- +goose Up

-- How the process that delivers to an endpoint has it configured, for whoever looks: a JSON object, without secrets; and when that process said so.
ALTER TABLE endpoint ADD COLUMN config TEXT, ADD COLUMN configured_at TIMESTAMPTZ, ADD CHECK ((config IS NULL) = (configured_at IS NULL));

-- +goose Down
ALTER TABLE endpoint DROP COLUMN config, DROP COLUMN configured_at;
