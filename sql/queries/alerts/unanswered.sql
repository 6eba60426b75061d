-- Critical incidents that nobody has acknowledged, and of which it was decided before a moment that
-- people are told that they are critical. Whether a channel took the message does not matter: where
-- none does, the second route is needed most. What an incident that came back was before its end
-- does not count.
SELECT i.incident_id, i.kind, began.times
  FROM anomaly.incidents i
 CROSS JOIN LATERAL (
       SELECT max(o.event_id) AS event_id, count(*) AS times
         FROM anomaly.alert_events o
        WHERE o.incident_id = i.incident_id AND o.event = 'opened') AS began
 WHERE i.state = 'open' AND i.severity = 'critical'
   AND EXISTS (SELECT
                 FROM anomaly.alert_events e
                 JOIN anomaly.alert_message_events s ON s.event_id = e.event_id
                WHERE e.incident_id = i.incident_id AND e.event_id >= began.event_id
                  AND e.severity = 'critical' AND e.event IN ('opened', 'worsened')
                  AND e.decided_at <= :before)
 ORDER BY i.incident_id
