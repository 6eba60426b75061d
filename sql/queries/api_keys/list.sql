-- Every key, newest first; with :everything also those that are revoked.
SELECT key_id, name, can_label, created_at, created_by, revoked_at, revoked_by
  FROM anomaly.api_keys
 WHERE :everything OR revoked_at IS NULL
 ORDER BY key_id DESC
