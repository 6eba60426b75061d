-- Replace verdicts that changed; those that did not are not staged, so that writing a
-- window again writes nothing.
UPDATE anomaly.anomaly_results r
   SET reading = s.reading, power_kw = s.power_kw, power_diff = s.power_diff,
       anomaly_score = s.anomaly_score, threshold = s.threshold, anomaly = s.anomaly,
       reason = s.reason, quality = s.quality, origin = s.origin,
       model_version = s.model_version, expected_kw = s.expected_kw, run_id = s.run_id,
       scored_at = s.scored_at
  FROM pg_temp.staged_results s
 WHERE s.machine_id = r.machine_id AND s.utc_timestamp = r.utc_timestamp
   AND r.utc_timestamp >= :start AND r.utc_timestamp < :end
