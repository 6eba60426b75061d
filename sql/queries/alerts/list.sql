-- Events, newest first, with what became of their messages.
SELECT e.event_id, e.created_at, e.event, e.kind, e.severity, e.incident_id, m.name AS machine,
       m.site, e.says, e.held_until, e.decided_at, coalesce(e.decision, 'not yet') AS decision,
       count(g.sent_at)::integer AS sent,
       count(*) FILTER (WHERE g.message_id IS NOT NULL AND g.sent_at IS NULL
                          AND g.given_up_at IS NULL AND g.dropped_at IS NULL)::integer AS waiting,
       count(g.dropped_at)::integer AS dropped,
       count(g.given_up_at)::integer AS given_up,
       max(g.error) AS error
  FROM anomaly.alert_events e
  LEFT JOIN anomaly.incidents i ON i.incident_id = e.incident_id
  LEFT JOIN anomaly.machines m ON m.machine_id = i.machine_id
  LEFT JOIN anomaly.alert_message_events s ON s.event_id = e.event_id
  LEFT JOIN anomaly.alert_messages g ON g.message_id = s.message_id
 GROUP BY e.event_id, m.name, m.site
HAVING NOT :only_failed OR count(g.given_up_at) > 0
 ORDER BY e.event_id DESC
 LIMIT :most
