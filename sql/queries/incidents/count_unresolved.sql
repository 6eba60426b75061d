-- Number of incidents that are not resolved, by severity and state.
SELECT severity, state, count(*) AS incidents
  FROM anomaly.incidents
 WHERE state IN ('open', 'acknowledged')
 GROUP BY severity, state
