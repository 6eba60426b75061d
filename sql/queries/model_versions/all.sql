-- Every version, newest first, with whether it judges new readings.
SELECT v.version, v.detector, v.status, v.trained_from, v.trained_to, v.readings,
       v.registered_at, v.registered_by, v.artefact,
       EXISTS (SELECT FROM anomaly.model_in_force f
                WHERE f.version = v.version AND f.superseded_at IS NULL
                  AND f.effective_to IS NULL) AS in_force,
       EXISTS (SELECT FROM anomaly.model_in_force f
                WHERE f.version = v.version AND f.superseded_at IS NULL) AS judges_a_range
  FROM anomaly.model_versions v
 ORDER BY v.version DESC
