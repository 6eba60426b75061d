-- A channel of a route takes the place of another, with all that it has heard.
WITH messages AS (
    UPDATE anomaly.alert_messages SET channel = :channel WHERE route = :route AND channel = :gone
)
UPDATE anomaly.alert_message_events SET channel = :channel WHERE route = :route AND channel = :gone
