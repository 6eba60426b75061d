-- Delete old events, at most so many, and messages that tell nothing any more. What is about an
-- incident that lasts stays: else it would be told again.
WITH old AS (
    SELECT e.event_id
      FROM anomaly.alert_events e
      LEFT JOIN anomaly.incidents i ON i.incident_id = e.incident_id
     WHERE e.created_at < :moment AND e.decided_at IS NOT NULL
       AND (i.incident_id IS NULL OR i.ended_at IS NOT NULL
            OR i.state IN ('withdrawn', 'merged'))
       AND NOT EXISTS (SELECT FROM anomaly.alert_events n
                        WHERE n.about = e.about AND n.created_at >= :moment)
       AND NOT EXISTS (SELECT FROM anomaly.alert_message_events s
                         JOIN anomaly.alert_messages m ON m.message_id = s.message_id
                        WHERE s.event_id = e.event_id AND m.sent_at IS NULL
                          AND m.given_up_at IS NULL AND m.dropped_at IS NULL)
     ORDER BY e.event_id
     LIMIT :most
)
DELETE FROM anomaly.alert_events e USING old WHERE e.event_id = old.event_id
