-- Replace the verdicts that changed. Only these are staged, so writing a window again writes
-- nothing.
UPDATE anomaly.anomaly_results r
   SET {assignments}
  FROM pg_temp.staged_results s
 WHERE s.machine_id = r.machine_id AND s.utc_timestamp = r.utc_timestamp
   AND r.utc_timestamp >= {start} AND r.utc_timestamp < {end}
