-- Alerts of each machine over a range, and what people found them to be worth. An
-- incident counts as real or false by the newest label of that kind that touches it.
SELECT m.machine_id, m.alert_budget,
       count(i.incident_id) AS alerts,
       count(*) FILTER (WHERE said.label = 'real') AS real_alerts,
       count(*) FILTER (WHERE said.label = 'false_alarm') AS false_alarms
  FROM anomaly.machines m
  LEFT JOIN anomaly.incidents i
    ON i.machine_id = m.machine_id AND i.kind = 'machine'
   AND i.state NOT IN ('withdrawn', 'merged')
   AND i.started_at >= :start AND i.started_at < :end
  LEFT JOIN LATERAL (
       SELECT l.label
         FROM anomaly.labels l
        WHERE l.machine_id = i.machine_id AND l.label IN ('real', 'false_alarm')
          AND l.during && tstzrange(i.started_at, i.last_at, '[]')
        ORDER BY l.label_id DESC
        LIMIT 1
       ) AS said ON true
 GROUP BY m.machine_id
 ORDER BY m.machine_id
