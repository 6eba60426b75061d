-- Move verdicts whose reading was deleted to the history.
WITH gone AS (
    DELETE FROM anomaly.anomaly_results r
     USING pg_temp.staged_retractions s
     WHERE r.machine_id = s.machine_id AND r.utc_timestamp = s.utc_timestamp
       AND r.utc_timestamp >= {start} AND r.utc_timestamp < {end}
    RETURNING r.*
)
INSERT INTO anomaly.anomaly_results_history ({columns}, superseded_at, superseded_by, cause)
SELECT {old_row}, {retracted_at}, {run_id}, 'retracted'
  FROM gone
