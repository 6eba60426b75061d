-- Channels that messages were made for since a moment.
SELECT DISTINCT route, channel
  FROM anomaly.alert_messages
 WHERE created_at >= :since
 ORDER BY route, channel
