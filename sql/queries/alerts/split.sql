-- Some of what a message tells waits: that becomes a message of its own to the same channel.
WITH later AS (
    INSERT INTO anomaly.alert_messages (route, channel, created_at, next_attempt, error)
    SELECT route, channel, created_at, :until, :why
      FROM anomaly.alert_messages
     WHERE message_id = :message_id
    RETURNING message_id
)
UPDATE anomaly.alert_message_events s
   SET message_id = later.message_id
  FROM later
 WHERE s.message_id = :message_id AND s.event_id = ANY (CAST(:events AS bigint[]))
