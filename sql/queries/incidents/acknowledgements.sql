-- Everybody who acknowledged an incident, earliest first.
SELECT acknowledged_by, acknowledged_at
  FROM anomaly.acknowledgements
 WHERE incident_id = :incident_id
 ORDER BY acknowledged_at, acknowledged_by
