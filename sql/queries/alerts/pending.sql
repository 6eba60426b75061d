-- Events to decide on now, the channels that have a message about the same, and of the pipeline
-- whether it is over.
SELECT f.*, f.decision AS waited, told.to_channels,
       f.incident_id IS NULL AND EXISTS (
           SELECT FROM anomaly.alert_events o
            WHERE o.about = f.about AND o.event = f.event || '_over') AS is_over
  FROM anomaly.alert_facts f
 CROSS JOIN LATERAL (
       SELECT coalesce(jsonb_agg(DISTINCT s.channel), '[]') AS to_channels
         FROM anomaly.alert_events e
         JOIN anomaly.alert_message_events s ON s.event_id = e.event_id
         JOIN anomaly.alert_messages m ON m.message_id = s.message_id
        WHERE e.about = f.about AND m.dropped_at IS NULL) AS told
 WHERE f.decided_at IS NULL AND (f.held_until IS NULL OR f.held_until <= :now)
 ORDER BY f.event_id
 LIMIT :most
