-- The ledger's row of a published window.
INSERT INTO anomaly.scoring_runs (
    run_id, window_start, window_end, written_to, origin, dag_id, dag_run_id, command, readings,
    missing, duplicates, scored, inserted, updated, unchanged, retracted, retraction_withheld,
    anomalies, ingested_through, package_version, published_at)
VALUES (
    :run_id, :start, :end, :written_to, :origin, :dag_id, :dag_run_id, :command, :readings,
    :missing, :duplicates, :scored, :inserted, :updated, :unchanged, :retracted,
    :retraction_withheld, :anomalies, :ingested_through, :package_version, :published_at)
