-- Every decision for good, oldest first: promotions and roll-backs, not past ranges.
SELECT f.decision, f.version, v.status
  FROM anomaly.model_in_force f
  JOIN anomaly.model_versions v USING (version)
 WHERE f.effective_to IS NULL AND f.decision IN ('promotion', 'rollback')
 ORDER BY f.entry_id
