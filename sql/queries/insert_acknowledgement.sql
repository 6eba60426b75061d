-- Keep who took an incident on; who says so again said it before.
INSERT INTO anomaly.acknowledgements (incident_id, acknowledged_by, acknowledged_at)
VALUES (:incident_id, :by, :at)
ON CONFLICT DO NOTHING
