-- Acknowledge an incident; the first person stays recorded as the first.
UPDATE anomaly.incidents
   SET acknowledged_at = coalesce(acknowledged_at, :at),
       acknowledged_by = coalesce(acknowledged_by, :by), updated_at = :at
 WHERE incident_id = :incident_id AND state IN ('open', 'acknowledged')
RETURNING machine_id, started_at, last_at
