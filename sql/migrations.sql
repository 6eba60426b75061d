-- What has been applied; made before anything else, safe to repeat.

CREATE SCHEMA IF NOT EXISTS anomaly;

CREATE TABLE IF NOT EXISTS anomaly.schema_migrations (
    name       text PRIMARY KEY,
    sha256     text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE anomaly.schema_migrations IS 'Which migrations this database has had';
COMMENT ON COLUMN anomaly.schema_migrations.name IS 'File in sql/migrations';
COMMENT ON COLUMN anomaly.schema_migrations.sha256 IS 'Hash of the text that was applied';
COMMENT ON COLUMN anomaly.schema_migrations.applied_at IS 'When';

GRANT USAGE ON SCHEMA anomaly TO anomaly_scorer, anomaly_trainer, anomaly_api;
GRANT SELECT ON anomaly.schema_migrations TO PUBLIC;
