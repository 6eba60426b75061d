-- Since when incidents of each machine last.
SELECT machine_id, min(started_at) AS since
  FROM anomaly.incidents
 WHERE machine_id = ANY (:machines) AND ended_at IS NULL
 GROUP BY machine_id
