-- A message waits; that was no attempt.
UPDATE anomaly.alert_messages
   SET attempts = attempts - 1, next_attempt = :until, error = :why
 WHERE message_id = :message_id
   AND sent_at IS NULL AND given_up_at IS NULL AND dropped_at IS NULL
