-- Move verdicts whose reading was deleted to the history.
WITH gone AS (
    DELETE FROM anomaly.anomaly_results r
     WHERE r.utc_timestamp >= :start AND r.utc_timestamp < :end
       AND r.utc_timestamp BETWEEN :first AND :last
       AND r.machine_id = ANY (:machines)
       AND NOT EXISTS (SELECT FROM pg_temp.staged_results s
                        WHERE s.machine_id = r.machine_id AND s.utc_timestamp = r.utc_timestamp)
    RETURNING r.*
)
INSERT INTO anomaly.anomaly_results_history
SELECT gone.*, :published_at, :run_id, 'retracted' FROM gone
