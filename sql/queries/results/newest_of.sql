-- When each machine was last judged.
SELECT m.machine_id, m.active_to, m.time_zone, newest.utc_timestamp AS last_at
  FROM anomaly.machines m
 CROSS JOIN LATERAL (
       SELECT r.utc_timestamp
         FROM anomaly.anomaly_results r
        WHERE r.machine_id = m.machine_id
        ORDER BY r.utc_timestamp DESC
        LIMIT 1
       ) AS newest
 WHERE m.machine_id = ANY (:machines)
