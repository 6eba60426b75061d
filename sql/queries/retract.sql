-- Move verdicts whose reading was deleted to the history.
WITH gone AS (
    DELETE FROM anomaly.anomaly_results r
     USING pg_temp.staged_retractions s
     WHERE r.machine_id = s.machine_id AND r.utc_timestamp = s.utc_timestamp
       AND r.utc_timestamp >= :start AND r.utc_timestamp < :end
    RETURNING r.*
)
INSERT INTO anomaly.anomaly_results_history (
    machine_id, utc_timestamp, reading, power_kw, power_diff, anomaly_score, threshold, anomaly,
    reason, quality, origin, model_version, run_id, scored_at, expected_kw, superseded_at,
    superseded_by, cause)
SELECT gone.machine_id, gone.utc_timestamp, gone.reading, gone.power_kw, gone.power_diff,
       gone.anomaly_score, gone.threshold, gone.anomaly, gone.reason, gone.quality, gone.origin,
       gone.model_version, gone.run_id, gone.scored_at, gone.expected_kw, :published_at, :run_id,
       'retracted'
  FROM gone
