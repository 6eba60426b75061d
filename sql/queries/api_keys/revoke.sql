-- Revoke the valid key of a name; who has done so first stays on record.
UPDATE anomaly.api_keys
   SET revoked_at = clock_timestamp(), revoked_by = :by
 WHERE name = :name AND revoked_at IS NULL
RETURNING key_id, name, can_label, created_at, created_by, revoked_at, revoked_by
