-- Incidents that nobody has acknowledged yet, the worst first, then the newest.
SELECT i.incident_id, i.machine_id, m.name AS machine, m.time_zone, i.kind, i.state, i.severity,
       i.started_at, i.told_at, i.ended_at, i.excess_kwh, i.reason
  FROM anomaly.incidents i
  JOIN anomaly.machines m USING (machine_id)
 WHERE i.state = 'open'
 ORDER BY array_position(ARRAY['critical', 'warning', 'notice'], i.severity),
          i.started_at DESC, i.incident_id DESC
