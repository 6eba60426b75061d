-- Each machine with its newest verdict.
SELECT m.machine_id, m.name, m.active_to,
       newest.utc_timestamp AS newest_verdict, newest.quality::text AS quality
  FROM anomaly.machines m
  LEFT JOIN LATERAL (
       SELECT r.utc_timestamp, r.quality FROM anomaly.anomaly_results r
        WHERE r.machine_id = m.machine_id
        ORDER BY r.utc_timestamp DESC
        LIMIT 1
       ) AS newest ON true
 ORDER BY m.machine_id
