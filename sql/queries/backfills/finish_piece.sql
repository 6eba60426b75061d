-- Record that a piece of a backfill is finished.
INSERT INTO anomaly.backfill_pieces
       (backfill_id, starts_at, ends_at, first_machine, last_machine, readings)
VALUES (:backfill_id, :start, :end, :first_machine, :last_machine, :readings)
