-- +goose Up
ALTER TABLE alert ADD COLUMN summary TEXT NOT NULL DEFAULT ''; -- what the key did, in the rule's words; none: empty
ALTER TABLE alert ADD COLUMN runbook TEXT NOT NULL DEFAULT ''; -- URL

-- +goose Down
ALTER TABLE alert DROP COLUMN runbook;
ALTER TABLE alert DROP COLUMN summary;
