-- Replace verdicts that changed; those that did not are not touched, so that
-- writing a window again writes nothing. Behind the window only the context has
-- changed: a verdict there whose reading was corrected as well is left to whoever
-- finds that, because the correction reaches farther than this attempt has looked.
UPDATE anomaly.anomaly_results r
   SET reading = s.reading, power_kw = s.power_kw, power_diff = s.power_diff,
       anomaly_score = s.anomaly_score, threshold = s.threshold, anomaly = s.anomaly,
       reason = s.reason, quality = s.quality, origin = s.origin,
       model_version = s.model_version, expected_kw = s.expected_kw, run_id = :run_id, scored_at = :published_at
  FROM pg_temp.staged_results s
 WHERE s.machine_id = r.machine_id AND s.utc_timestamp = r.utc_timestamp
   AND r.utc_timestamp >= :start AND r.utc_timestamp < :written_to
   AND (NOT s.behind OR r.reading = s.reading)
   AND (r.reading, r.power_kw, r.power_diff, r.anomaly_score, r.threshold, r.anomaly, r.reason,
        r.quality, r.model_version, r.expected_kw)
       IS DISTINCT FROM
       (s.reading, s.power_kw, s.power_diff, s.anomaly_score, s.threshold, s.anomaly, s.reason,
        s.quality, s.model_version, s.expected_kw)
