-- Forget finished pieces that overlap one which is finished now.
DELETE FROM anomaly.backfill_pieces
 WHERE backfill_id = :backfill_id
   AND starts_at < :end AND :start < ends_at
   AND first_machine <= :last_machine AND :first_machine <= last_machine
