-- +goose Up

-- How the process that delivers to an endpoint has it configured, for whoever looks: a JSON object, without secrets; and when that process said so.
ALTER TABLE endpoint ADD COLUMN config TEXT;
ALTER TABLE endpoint ADD COLUMN configured_at INTEGER;

-- +goose Down
ALTER TABLE endpoint DROP COLUMN configured_at;
ALTER TABLE endpoint DROP COLUMN config;
