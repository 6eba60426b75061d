-- Metrics: what they count stays right when old rows of the ledger are deleted, and the queries
-- behind them read few rows.

-- A Prometheus counter that falls is taken for one that began again at 0. So what deleted rows of
-- the ledger have counted is kept.
CREATE TABLE anomaly.deleted_scoring_runs (
    origin    anomaly.run_origin PRIMARY KEY,
    inserted  bigint NOT NULL DEFAULT 0,
    updated   bigint NOT NULL DEFAULT 0,
    retracted bigint NOT NULL DEFAULT 0
);
COMMENT ON TABLE anomaly.deleted_scoring_runs IS
    'Sums of the rows that were deleted from scoring_runs: counters of metrics never fall';
COMMENT ON COLUMN anomaly.deleted_scoring_runs.origin IS 'live, late or backfill';
COMMENT ON COLUMN anomaly.deleted_scoring_runs.inserted IS 'Verdicts that were new';
COMMENT ON COLUMN anomaly.deleted_scoring_runs.updated IS 'Verdicts that changed';
COMMENT ON COLUMN anomaly.deleted_scoring_runs.retracted IS
    'Verdicts removed because their reading was deleted';
INSERT INTO anomaly.deleted_scoring_runs (origin)
SELECT unnest(enum_range(NULL::anomaly.run_origin));

CREATE FUNCTION anomaly.keep_deleted_counts()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE anomaly.deleted_scoring_runs kept
       SET inserted = kept.inserted + gone.inserted, updated = kept.updated + gone.updated,
           retracted = kept.retracted + gone.retracted
      FROM (SELECT origin, sum(inserted) AS inserted, sum(updated) AS updated,
                   sum(retracted) AS retracted
              FROM deleted
             GROUP BY origin) AS gone
     WHERE kept.origin = gone.origin;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION anomaly.keep_deleted_counts() IS
    'Adds what deleted rows of scoring_runs counted to deleted_scoring_runs';
REVOKE ALL ON FUNCTION anomaly.keep_deleted_counts() FROM PUBLIC;
CREATE TRIGGER scoring_runs_keep_counts AFTER DELETE ON anomaly.scoring_runs
    REFERENCING OLD TABLE AS deleted
    FOR EACH STATEMENT EXECUTE FUNCTION anomaly.keep_deleted_counts();

CREATE INDEX scoring_runs_published ON anomaly.scoring_runs (published_at);
CREATE INDEX incidents_unresolved ON anomaly.incidents (severity, state)
    WHERE state IN ('open', 'acknowledged');
CREATE INDEX incidents_started ON anomaly.incidents (started_at);
