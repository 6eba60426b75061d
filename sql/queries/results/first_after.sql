-- Machines whose first verdict after a window follows a gap: verdicts published in the window
-- move the start of that gap.
SELECT m.machine_id
  FROM unnest(CAST(:machines AS integer[])) AS m (machine_id)
 CROSS JOIN LATERAL (
       SELECT r.quality
         FROM anomaly.anomaly_results r
        WHERE r.machine_id = m.machine_id AND r.utc_timestamp >= :end
        ORDER BY r.utc_timestamp
        LIMIT 1
       ) AS following
 WHERE following.quality >= 'gap'
