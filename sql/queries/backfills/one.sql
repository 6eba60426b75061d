-- A backfill as it was asked for.
SELECT backfill_id, starts_at, ends_at, machines, version, mode, chunk, piece, command, dag_run_id,
       started_at, finished_at, report
  FROM anomaly.backfills
 WHERE backfill_id = :backfill_id
