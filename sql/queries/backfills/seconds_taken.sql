-- How long a backfill has taken, or how long ago it began.
SELECT extract(epoch FROM coalesce(finished_at, clock_timestamp()) - started_at)::float8
  FROM anomaly.backfills
 WHERE backfill_id = :backfill_id
