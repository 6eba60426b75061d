-- Machines whose incidents a publication may have changed: machines with abnormal verdicts or
-- incidents in its range. Incidents that still last: see lasting.sql.
SELECT r.machine_id
  FROM anomaly.anomaly_results r
 WHERE r.utc_timestamp >= :start AND r.utc_timestamp < :end
   AND (r.anomaly = 1 OR r.quality >= 'gap')
   AND r.machine_id = ANY (:machines)
 UNION
SELECT i.machine_id
  FROM anomaly.incidents i
 WHERE i.machine_id = ANY (:machines)
   AND i.started_at < :end AND i.last_at >= :start
 UNION
-- A machine without a verdict among the newest ones has become silent.
SELECT m.machine_id
  FROM anomaly.machines m
 WHERE m.machine_id = ANY (CAST(:quiet AS integer[]))
   AND NOT EXISTS (
       SELECT FROM anomaly.anomaly_results r
        WHERE r.machine_id = m.machine_id AND r.utc_timestamp >= :silent_since)
 ORDER BY 1
