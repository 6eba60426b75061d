-- There is nothing left to say.
UPDATE anomaly.alert_messages
   SET dropped_at = clock_timestamp(), error = :why
 WHERE message_id = :message_id
   AND sent_at IS NULL AND given_up_at IS NULL AND dropped_at IS NULL
