-- A channel has not taken a message: it is tried again, or given up.
UPDATE anomaly.alert_messages
   SET error = :error, next_attempt = :next_attempt,
       given_up_at = CASE WHEN :gives_up THEN clock_timestamp() END
 WHERE message_id = :message_id
   AND sent_at IS NULL AND given_up_at IS NULL AND dropped_at IS NULL
