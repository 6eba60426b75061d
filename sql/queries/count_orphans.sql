-- Verdicts in the window whose reading is gone, beside all verdicts there.
SELECT count(*) AS verdicts,
       count(*) FILTER (WHERE NOT EXISTS (
           SELECT FROM pg_temp.staged_results s
            WHERE s.machine_id = r.machine_id AND s.utc_timestamp = r.utc_timestamp)) AS orphans
  FROM anomaly.anomaly_results r
 WHERE r.utc_timestamp >= :start AND r.utc_timestamp < :end
   AND r.machine_id = ANY (:machines)
