-- Every entry of the version map about a moment, replaced ones included, oldest first.
SELECT f.version, f.decision, nullif(f.effective_from, '-infinity') AS effective_from,
       f.effective_to, f.recorded_at, f.recorded_by, f.reason, f.superseded_at
  FROM anomaly.model_in_force f
 WHERE tstzrange(f.effective_from, f.effective_to) @> CAST(:moment AS timestamptz)
 ORDER BY f.entry_id
