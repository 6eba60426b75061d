-- Take the oldest message that is due; one about something of which the same channel has an older
-- message waits for that. If its sender dies, it is due again after a while.
UPDATE anomaly.alert_messages
   SET attempts = attempts + 1, next_attempt = CAST(:now AS timestamptz) + CAST(:lease AS interval)
 WHERE message_id = (
       SELECT g.message_id
         FROM anomaly.alert_messages g
        WHERE g.sent_at IS NULL AND g.given_up_at IS NULL AND g.dropped_at IS NULL
          AND g.next_attempt <= :now
          AND g.channel <> ALL (CAST(:busy AS text[]))
          AND EXISTS (SELECT FROM anomaly.alert_message_events s
                       WHERE s.message_id = g.message_id)
          AND NOT EXISTS (
              SELECT
                FROM anomaly.alert_message_events s
                JOIN anomaly.alert_events e ON e.event_id = s.event_id
                JOIN anomaly.alert_events o ON o.about = e.about
                JOIN anomaly.alert_message_events t
                  ON t.event_id = o.event_id AND t.channel = s.channel
                JOIN anomaly.alert_messages b ON b.message_id = t.message_id
               WHERE s.message_id = g.message_id AND b.message_id < g.message_id
                 AND b.sent_at IS NULL AND b.given_up_at IS NULL AND b.dropped_at IS NULL)
        ORDER BY g.message_id
        LIMIT 1
          FOR UPDATE SKIP LOCKED)
RETURNING message_id, route, channel, created_at, attempts
