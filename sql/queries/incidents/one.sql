-- One incident.
SELECT i.machine_id, m.name AS machine, i.state, i.started_at, i.last_at, i.merged_into
  FROM anomaly.incidents i
  JOIN anomaly.machines m USING (machine_id)
 WHERE i.incident_id = :incident_id
