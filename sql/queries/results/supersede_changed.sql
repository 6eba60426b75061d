-- Copy to the history the verdicts that the staged ones will replace (see update_changed).
INSERT INTO anomaly.anomaly_results_history ({columns}, superseded_at, superseded_by, cause)
SELECT {old_row}, s.scored_at, s.run_id,
       CASE WHEN r.reading IS DISTINCT FROM s.reading THEN 'corrected' ELSE 'rescored' END
  FROM pg_temp.staged_results s
  JOIN anomaly.anomaly_results r
    ON r.machine_id = s.machine_id AND r.utc_timestamp = s.utc_timestamp
 WHERE r.utc_timestamp >= {start} AND r.utc_timestamp < {end}
