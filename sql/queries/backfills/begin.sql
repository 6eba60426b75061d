-- Record what is asked of a backfill that begins to write.
INSERT INTO anomaly.backfills (starts_at, ends_at, machines, version, mode, chunk, piece, command, dag_run_id)
VALUES (:start, :end, CAST(:machines AS integer[]), :version, :mode, :chunk, :piece, :command, :dag_run_id)
RETURNING backfill_id
