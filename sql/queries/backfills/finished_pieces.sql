-- Pieces that a backfill has finished.
SELECT starts_at, ends_at, first_machine, last_machine, readings
  FROM anomaly.backfill_pieces
 WHERE backfill_id = :backfill_id
