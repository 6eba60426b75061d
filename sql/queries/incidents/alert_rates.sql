-- Alerts of each machine in a range, the time judged in it, and how many alerts people called
-- real or false.
SELECT m.machine_id, m.alert_budget, judged.first_at, judged.last_at,
       count(a.incident_id) AS alerts,
       count(*) FILTER (WHERE a.label = 'real') AS real_alerts,
       count(*) FILTER (WHERE a.label = 'false_alarm') AS false_alarms
  FROM anomaly.machines m
  LEFT JOIN LATERAL (
       SELECT min(r.utc_timestamp) AS first_at, max(r.utc_timestamp) AS last_at
         FROM anomaly.anomaly_results r
        WHERE r.machine_id = m.machine_id
          AND r.utc_timestamp >= :start AND r.utc_timestamp < :end
       ) AS judged ON true
  LEFT JOIN anomaly.alerts a
    ON a.machine_id = m.machine_id AND a.started_at >= :start AND a.started_at < :end
 GROUP BY m.machine_id, judged.first_at, judged.last_at
 ORDER BY m.machine_id
