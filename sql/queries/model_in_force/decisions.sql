-- All promotions and roll-backs, oldest first. Decisions about past ranges are not included.
SELECT f.decision, f.version, v.status
  FROM anomaly.model_in_force f
  JOIN anomaly.model_versions v USING (version)
 WHERE f.effective_to IS NULL AND f.decision IN ('promotion', 'rollback')
 ORDER BY f.entry_id
