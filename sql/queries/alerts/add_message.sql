-- Make a message to one channel; return its number. Nothing is told twice to one channel.
WITH message AS (
    INSERT INTO anomaly.alert_messages (route, channel, created_at, next_attempt)
    VALUES (:route, :channel, :at, :at)
    RETURNING message_id, route, channel
)
INSERT INTO anomaly.alert_message_events (event_id, route, channel, message_id)
SELECT told.event_id, m.route, m.channel, m.message_id
  FROM message m, unnest(CAST(:events AS bigint[])) AS told (event_id)
RETURNING message_id
