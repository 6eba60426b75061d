-- Messages that were given up since a moment, per route.
SELECT route, count(*) AS messages, max(given_up_at) AS given_up_at
  FROM anomaly.alert_messages
 WHERE given_up_at >= :since
 GROUP BY route
 ORDER BY route
