-- Let events wait.
UPDATE anomaly.alert_events e
   SET held_until = new.held_until, decision = new.decision
  FROM jsonb_to_recordset(CAST(:held AS jsonb)) AS new (
       event_id bigint, held_until timestamptz, decision text)
 WHERE e.event_id = new.event_id AND e.decided_at IS NULL
