-- Which model version judges which part of a window.
SELECT f.entry_id,
       greatest(f.effective_from, :start) AS starts_at,
       least(coalesce(f.effective_to, :end), :end) AS ends_at,
       v.version, v.artefact, v.sha256
  FROM anomaly.model_in_force f
  JOIN anomaly.model_versions v USING (version)
 WHERE f.superseded_at IS NULL
   AND tstzrange(f.effective_from, f.effective_to) && tstzrange(:start, :end)
 ORDER BY f.effective_from
