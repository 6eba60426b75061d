-- Of the verdicts without a reading, those between the source's first and last:
-- what lies outside was purged or never delivered, not deleted.
SELECT count(*)
  FROM anomaly.anomaly_results r
 WHERE r.utc_timestamp >= :start AND r.utc_timestamp < :end
   AND r.utc_timestamp BETWEEN :first AND :last
   AND r.machine_id = ANY (:machines)
   AND NOT EXISTS (SELECT FROM pg_temp.staged_results s
                    WHERE s.machine_id = r.machine_id AND s.utc_timestamp = r.utc_timestamp)
