-- Keys of the API: who may ask it, and who may label. A key itself is never stored.

CREATE TABLE anomaly.api_keys (
    key_id     integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text NOT NULL CHECK (name <> ''),
    digest     text NOT NULL UNIQUE CHECK (digest ~ '^[0-9a-f]{64}$'),
    can_label  boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by text NOT NULL,
    revoked_at timestamptz,
    revoked_by text
);
CREATE UNIQUE INDEX api_keys_name ON anomaly.api_keys (name) WHERE revoked_at IS NULL;
COMMENT ON TABLE anomaly.api_keys IS 'Keys of the API; a revoked one stays on record';
COMMENT ON COLUMN anomaly.api_keys.key_id IS 'In the order in which they were made';
COMMENT ON COLUMN anomaly.api_keys.name IS 'Who uses it; stands beside the labels that it gives';
COMMENT ON COLUMN anomaly.api_keys.digest IS 'SHA-256 of the key, which is 32 random bytes';
COMMENT ON COLUMN anomaly.api_keys.can_label IS 'Whether it may label, too';
COMMENT ON COLUMN anomaly.api_keys.created_at IS 'When it was made';
COMMENT ON COLUMN anomaly.api_keys.created_by IS 'Who made it';
COMMENT ON COLUMN anomaly.api_keys.revoked_at IS 'When it was revoked; empty: it is valid';
COMMENT ON COLUMN anomaly.api_keys.revoked_by IS 'Who revoked it';
