-- Record who acknowledged an incident; a second time by the same person changes nothing.
INSERT INTO anomaly.acknowledgements (incident_id, acknowledged_by, acknowledged_at)
VALUES (:incident_id, :by, :at)
ON CONFLICT DO NOTHING
