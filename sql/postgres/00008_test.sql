-- +goose Up

-- A message can be a test of its endpoint, which is about no alert or incident.
ALTER TABLE delivery
    DROP CONSTRAINT delivery_type_check,
    ADD CONSTRAINT delivery_type_check CHECK (type IN ('incident.opened', 'incident.escalated', 'incident.resolved', 'incident.digest', 'alert.opened', 'alert.raised', 'alert.closed', 'alert.digest', 'endpoint.test')),
    DROP CONSTRAINT delivery_subject_check,
    ADD CONSTRAINT delivery_subject_check CHECK (num_nonnulls(alert_id, incident_id) = CASE WHEN type IN ('alert.digest', 'incident.digest', 'endpoint.test') THEN 0 ELSE 1 END);

-- +goose Down
DELETE FROM delivery WHERE type = 'endpoint.test';
ALTER TABLE delivery
    DROP CONSTRAINT delivery_type_check,
    ADD CONSTRAINT delivery_type_check CHECK (type IN ('incident.opened', 'incident.escalated', 'incident.resolved', 'incident.digest', 'alert.opened', 'alert.raised', 'alert.closed', 'alert.digest')),
    DROP CONSTRAINT delivery_subject_check,
    ADD CONSTRAINT delivery_subject_check CHECK (num_nonnulls(alert_id, incident_id) = CASE WHEN type IN ('alert.digest', 'incident.digest') THEN 0 ELSE 1 END);
