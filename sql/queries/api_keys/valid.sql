-- Keys that are not revoked.
SELECT digest, name, can_label FROM anomaly.api_keys WHERE revoked_at IS NULL
