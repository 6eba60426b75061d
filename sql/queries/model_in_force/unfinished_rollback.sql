-- The roll-back in force that is not finished: its command was killed or is still running.
SELECT f.version, nullif(f.effective_from, '-infinity') AS effective_from, f.recorded_at,
       f.recorded_by,
       (SELECT before.version FROM anomaly.model_in_force before
         WHERE before.superseded_at IS NOT NULL AND before.effective_to IS NULL
           AND before.entry_id < f.entry_id
         ORDER BY before.entry_id DESC LIMIT 1) AS replaced
  FROM anomaly.model_in_force f
 WHERE f.unfinished AND f.decision = 'rollback' AND f.effective_to IS NULL
   AND f.superseded_at IS NULL
