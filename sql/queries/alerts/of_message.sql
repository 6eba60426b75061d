-- What a message is to tell, and what its channel has heard of the same: how severe it was, at its
-- worst since the channel last heard that it is over, and whether the last it heard is that it is
-- over.
SELECT f.*, g.error AS waited, heard.worst, heard.is_over AS heard_over,
       f.incident_id IS NULL AND EXISTS (
           SELECT FROM anomaly.alert_events o
            WHERE o.about = f.about AND o.event = f.event || '_over') AS is_over
  FROM anomaly.alert_message_events t
  JOIN anomaly.alert_messages g ON g.message_id = t.message_id
  JOIN anomaly.alert_facts f ON f.event_id = t.event_id
 CROSS JOIN LATERAL (
       SELECT (array_agg(h.is_over ORDER BY h.sent_at DESC, h.message_id DESC))[1] AS is_over,
              (ARRAY['notice', 'warning', 'critical'])[max(h.rank) FILTER (
                  WHERE h.sent_at > coalesce(h.over_at, '-infinity'))] AS worst
         FROM (SELECT s.is_over, m.sent_at, m.message_id,
                      array_position(ARRAY['notice', 'warning', 'critical'], s.severity) AS rank,
                      max(m.sent_at) FILTER (WHERE s.is_over) OVER () AS over_at
                 FROM anomaly.alert_events e
                 JOIN anomaly.alert_message_events s ON s.event_id = e.event_id
                 JOIN anomaly.alert_messages m ON m.message_id = s.message_id
                WHERE e.about = f.about AND s.channel = t.channel
                  AND m.sent_at IS NOT NULL AND s.severity IS NOT NULL) AS h) AS heard
 WHERE t.message_id = :message_id
 ORDER BY f.event_id
