-- Keep the report of a backfill. It is finished once; a later report replaces an earlier one.
UPDATE anomaly.backfills
   SET report = CAST(:report AS jsonb),
       finished_at = CASE WHEN CAST(:is_finished AS boolean) THEN coalesce(finished_at, clock_timestamp()) END
 WHERE backfill_id = :backfill_id
RETURNING finished_at
