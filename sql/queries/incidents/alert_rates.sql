-- Alerts of each machine in a range, the time judged in it, and how many alerts people called
-- real or false. The newest label of these kinds that overlaps an incident counts. An incident
-- that was told during maintenance and ended in it was silenced all the time, so it is no alert.
SELECT m.machine_id, m.alert_budget, judged.first_at, judged.last_at,
       count(i.incident_id) AS alerts,
       count(*) FILTER (WHERE said.label = 'real') AS real_alerts,
       count(*) FILTER (WHERE said.label = 'false_alarm') AS false_alarms
  FROM anomaly.machines m
  LEFT JOIN LATERAL (
       SELECT min(r.utc_timestamp) AS first_at, max(r.utc_timestamp) AS last_at
         FROM anomaly.anomaly_results r
        WHERE r.machine_id = m.machine_id
          AND r.utc_timestamp >= :start AND r.utc_timestamp < :end
       ) AS judged ON true
  LEFT JOIN anomaly.incidents i
    ON i.machine_id = m.machine_id AND i.kind = 'machine'
   AND i.state NOT IN ('withdrawn', 'merged')
   AND i.started_at >= :start AND i.started_at < :end
   AND NOT (i.state = 'silenced' AND EXISTS (
       SELECT FROM anomaly.labels l
        WHERE l.machine_id = i.machine_id AND l.label = 'maintenance'
          AND l.withdrawn_as IS NULL
          AND l.during @> i.told_at - interval '1 microsecond'))
  LEFT JOIN LATERAL (
       SELECT l.label
         FROM anomaly.labels l
        WHERE l.machine_id = i.machine_id AND l.label IN ('real', 'false_alarm')
          AND l.withdrawn_as IS NULL
          AND l.during && tstzrange(i.started_at, coalesce(i.ended_at, 'infinity'))
        ORDER BY l.label_id DESC
        LIMIT 1
       ) AS said ON true
 GROUP BY m.machine_id, judged.first_at, judged.last_at
 ORDER BY m.machine_id
