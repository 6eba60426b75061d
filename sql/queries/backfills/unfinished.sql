-- The newest backfill of a run that is not finished.
SELECT backfill_id
  FROM anomaly.backfills
 WHERE dag_run_id = :dag_run_id AND finished_at IS NULL
 ORDER BY backfill_id DESC
 LIMIT 1
