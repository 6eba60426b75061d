-- Add verdicts on readings that had none, in the order of the key.
INSERT INTO anomaly.anomaly_results (
    machine_id, utc_timestamp, reading, power_kw, power_diff, anomaly_score, threshold, anomaly,
    reason, quality, origin, model_version, expected_kw, run_id,
    scored_at)
SELECT s.machine_id, s.utc_timestamp, s.reading, s.power_kw, s.power_diff, s.anomaly_score,
       s.threshold, s.anomaly, s.reason, s.quality, s.origin, s.model_version,
       s.expected_kw, :run_id, :published_at
  FROM pg_temp.staged_results s
 WHERE NOT s.behind
   AND NOT EXISTS (
       SELECT FROM anomaly.anomaly_results r
        WHERE r.machine_id = s.machine_id AND r.utc_timestamp = s.utc_timestamp
          AND r.utc_timestamp >= :start AND r.utc_timestamp < :end)
 ORDER BY s.machine_id, s.utc_timestamp
