-- Keep the verdicts that the staged ones are about to replace (see update_changed).
INSERT INTO anomaly.anomaly_results_history (
    machine_id, utc_timestamp, reading, power_kw, power_diff, anomaly_score, threshold, anomaly,
    reason, quality, origin, model_version, run_id, scored_at, expected_kw, superseded_at,
    superseded_by, cause)
SELECT r.machine_id, r.utc_timestamp, r.reading, r.power_kw, r.power_diff, r.anomaly_score,
       r.threshold, r.anomaly, r.reason, r.quality, r.origin, r.model_version, r.run_id,
       r.scored_at, r.expected_kw, s.scored_at, s.run_id,
       CASE WHEN r.reading IS DISTINCT FROM s.reading THEN 'corrected' ELSE 'rescored' END
  FROM pg_temp.staged_results s
  JOIN anomaly.anomaly_results r
    ON r.machine_id = s.machine_id AND r.utc_timestamp = s.utc_timestamp
 WHERE r.utc_timestamp >= :start AND r.utc_timestamp < :end
