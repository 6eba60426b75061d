-- A new key, unless a valid one has its name.
INSERT INTO anomaly.api_keys (name, digest, can_label, created_by)
VALUES (:name, :digest, :can_label, :by)
    ON CONFLICT (name) WHERE revoked_at IS NULL DO NOTHING
RETURNING key_id, name, can_label, created_at, created_by
