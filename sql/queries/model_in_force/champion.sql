-- The version that judges new readings, and where its files are.
SELECT v.version, v.artefact, v.sha256, v.trained_to
  FROM anomaly.model_in_force f
  JOIN anomaly.model_versions v USING (version)
 WHERE f.superseded_at IS NULL AND f.effective_to IS NULL
