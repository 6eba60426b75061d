-- The newest anomalies.
SELECT utc_timestamp AS utc, machine, anomaly_score AS score, reason
  FROM bi.anomalies
 ORDER BY utc_timestamp DESC, machine
 LIMIT 8
