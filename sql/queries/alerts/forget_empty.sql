-- Delete messages whose events are gone, with the machine that they were about.
DELETE FROM anomaly.alert_messages m
 WHERE NOT EXISTS (SELECT FROM anomaly.alert_message_events s WHERE s.message_id = m.message_id)
