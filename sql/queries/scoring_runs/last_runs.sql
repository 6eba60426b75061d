-- The last published windows that held readings or changed something, newest first.
SELECT run_id, window_start, window_end, origin::text AS origin, command, readings, inserted,
       updated, retracted, retraction_withheld, anomalies, published_at
  FROM anomaly.scoring_runs
 WHERE window_start < window_end
   AND (readings > 0 OR inserted + updated + retracted + retraction_withheld > 0)
 ORDER BY run_id DESC
 LIMIT 5
