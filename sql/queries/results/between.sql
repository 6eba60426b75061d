-- Verdicts of a machine in a range, both ends included.
SELECT utc_timestamp, power_kw, expected_kw, anomaly_score, quality::text AS quality, anomaly,
       reason
  FROM anomaly.anomaly_results
 WHERE machine_id = :machine_id AND utc_timestamp BETWEEN :start AND :end
 ORDER BY utc_timestamp
