-- Record what was decided on events.
UPDATE anomaly.alert_events e
   SET decided_at = :at, decision = new.decision
  FROM jsonb_to_recordset(CAST(:decided AS jsonb)) AS new (event_id bigint, decision text)
 WHERE e.event_id = new.event_id AND e.decided_at IS NULL
