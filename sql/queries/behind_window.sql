-- Machines whose readings in the window changed since they were scored, with the
-- last verdict behind the window that such a change reaches: up to :reach after
-- the change, and in any case its successor unless that is more than :max_gap on.
WITH changed AS (
    SELECT machine_id, max(utc_timestamp) AS changed_at
      FROM (
           SELECT s.machine_id, s.utc_timestamp
             FROM pg_temp.staged_results s
             LEFT JOIN anomaly.anomaly_results r
               ON r.machine_id = s.machine_id AND r.utc_timestamp = s.utc_timestamp
              AND r.utc_timestamp >= :start AND r.utc_timestamp < :end
            WHERE r.reading IS DISTINCT FROM s.reading
            UNION ALL
           SELECT r.machine_id, r.utc_timestamp
             FROM anomaly.anomaly_results r
            WHERE r.utc_timestamp >= :start AND r.utc_timestamp < :end
              AND r.machine_id = ANY (:machines)
              AND NOT EXISTS (SELECT FROM pg_temp.staged_results s
                               WHERE s.machine_id = r.machine_id
                                 AND s.utc_timestamp = r.utc_timestamp)
           ) AS difference
     GROUP BY machine_id
)
SELECT c.machine_id, later.until
  FROM changed c
 CROSS JOIN LATERAL (
       SELECT greatest(
                  min(r.utc_timestamp),
                  max(r.utc_timestamp) FILTER (
                      WHERE r.utc_timestamp <= c.changed_at + CAST(:reach AS interval))
              ) AS until
         FROM anomaly.anomaly_results r
        WHERE r.machine_id = c.machine_id
          AND r.utc_timestamp >= :end
          AND r.utc_timestamp <= c.changed_at + CAST(:max_gap AS interval)
       ) AS later
 WHERE later.until IS NOT NULL
 ORDER BY c.machine_id
