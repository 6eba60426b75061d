-- One incident.
SELECT machine_id, state, started_at, last_at, merged_into
  FROM anomaly.incidents
 WHERE incident_id = :incident_id
