-- The version that judges new readings.
SELECT f.version, nullif(f.effective_from, '-infinity') AS effective_from, f.recorded_at,
       f.recorded_by, v.trained_to
  FROM anomaly.model_in_force f
  JOIN anomaly.model_versions v USING (version)
 WHERE f.superseded_at IS NULL AND f.effective_to IS NULL
