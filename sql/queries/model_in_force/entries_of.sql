-- Every entry of the version map about a version, replaced ones included, oldest first.
SELECT f.entry_id, f.decision, nullif(f.effective_from, '-infinity') AS effective_from,
       f.effective_to, f.recorded_at, f.recorded_by, f.reason, f.superseded_at
  FROM anomaly.model_in_force f
 WHERE f.version = :version
 ORDER BY f.entry_id
