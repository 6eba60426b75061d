-- Incidents that people called a false alarm since a moment, and when they were.
SELECT DISTINCT i.machine_id, i.kind, i.severity, i.reason, l.label_id, l.labelled_by
  FROM anomaly.labels l
  JOIN anomaly.incidents i
    ON i.machine_id = l.machine_id
   AND l.during && tstzrange(i.started_at, coalesce(i.ended_at, i.last_at), '[]')
 WHERE l.label = 'false_alarm' AND l.withdrawn_as IS NULL AND l.labelled_at >= :since
   AND i.state NOT IN ('withdrawn', 'merged')
