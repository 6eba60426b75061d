-- A channel has taken a message; note what it said.
WITH sent AS (
    UPDATE anomaly.alert_messages
       SET sent_at = clock_timestamp(), error = NULL
     WHERE message_id = :message_id
       AND sent_at IS NULL AND given_up_at IS NULL AND dropped_at IS NULL
    RETURNING message_id
)
UPDATE anomaly.alert_message_events s
   SET severity = said.severity, is_over = said.is_over
  FROM sent, jsonb_to_recordset(CAST(:said AS jsonb)) AS said (
       event_id bigint, severity text, is_over boolean)
 WHERE s.message_id = sent.message_id AND s.event_id = said.event_id
