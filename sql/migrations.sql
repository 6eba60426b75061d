-- The table of applied migrations; created before anything else, safe to repeat.
--
-- Only one migration runs at a time: only the owner can lock this table. If two start at the same
-- time on an empty database, the second waits here until the first has ended.

DO $$
BEGIN
    CREATE SCHEMA IF NOT EXISTS anomaly;
    CREATE TABLE IF NOT EXISTS anomaly.schema_migrations (
        name       text PRIMARY KEY,
        sha256     text NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
    );
EXCEPTION WHEN unique_violation OR duplicate_schema OR duplicate_table THEN
    NULL; -- the other migration has created them
END
$$;
LOCK TABLE anomaly.schema_migrations IN EXCLUSIVE MODE;
COMMENT ON TABLE anomaly.schema_migrations IS 'Which migrations this database has had';
COMMENT ON COLUMN anomaly.schema_migrations.name IS 'File in sql/migrations';
COMMENT ON COLUMN anomaly.schema_migrations.sha256 IS 'Hash of the text that was applied';
COMMENT ON COLUMN anomaly.schema_migrations.applied_at IS 'When';

GRANT USAGE ON SCHEMA anomaly TO anomaly_scorer, anomaly_trainer;
