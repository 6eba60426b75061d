-- Insert the ledger's row for a published window.
--
-- ingested_through is never later than now: otherwise one reading with a write time in
-- the future would hide from the ticks all rows written until then.
INSERT INTO anomaly.scoring_runs (
    run_id, window_start, window_end, written_from, written_to, origin, dag_id, dag_run_id,
    command, readings, missing, duplicates, scored, inserted, late, updated,
    unchanged, retracted, retraction_withheld, anomalies, meter_interval,
    stale_after, ingested_through, readings_to, machines, backfill_id, package_version, published_at)
VALUES (
    :run_id, :start, :end, :written_from, :written_to, :origin, :dag_id, :dag_run_id, :command,
    :readings, :missing, :duplicates, :scored, :inserted, :late, :updated, :unchanged,
    :retracted, :retraction_withheld, :anomalies, :meter_interval,
    :stale_after,
    CASE WHEN CAST(:ingested_through AS timestamptz) IS NOT NULL
         THEN least(CAST(:ingested_through AS timestamptz), CAST(:published_at AS timestamptz))
    END,
    :readings_to, CAST(:machines AS integer[]), :backfill_id, :package_version, :published_at)
