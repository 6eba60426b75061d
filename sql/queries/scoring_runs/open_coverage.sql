-- Record where live scoring begins when there is no model yet: an empty window, so that the
-- first run with a model starts here.
INSERT INTO anomaly.scoring_runs (
    run_id, window_start, window_end, written_from, written_to, origin, dag_id, dag_run_id,
    command, package_version)
VALUES (:run_id, :moment, :moment, :moment, :moment, 'live', :dag_id, :dag_run_id, :command, '')
