-- Write what people are to be told; what was written before is left alone.
INSERT INTO anomaly.alert_events (key, about, event, kind, severity, incident_id, says, created_at)
SELECT key, about, event, kind, severity, incident_id, says, created_at
  FROM jsonb_to_recordset(CAST(:events AS jsonb)) AS new (
       key text, about text, event text, kind text, severity text, incident_id bigint, says text,
       created_at timestamptz)
    ON CONFLICT (key) DO NOTHING
RETURNING event_id
