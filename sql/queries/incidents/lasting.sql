-- Start of the earliest incident of each machine that still lasts.
SELECT machine_id, min(started_at) AS since
  FROM anomaly.incidents
 WHERE machine_id = ANY (:machines) AND ended_at IS NULL
 GROUP BY machine_id
