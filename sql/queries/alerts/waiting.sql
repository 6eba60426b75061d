-- How many events are to be decided on yet, and how many messages are to be sent yet.
SELECT (SELECT count(*) FROM anomaly.alert_events WHERE decided_at IS NULL)::integer AS events,
       (SELECT count(*) FROM anomaly.alert_messages
         WHERE sent_at IS NULL AND given_up_at IS NULL AND dropped_at IS NULL)::integer AS messages
