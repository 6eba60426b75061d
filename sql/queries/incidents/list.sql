-- Incidents that overlap a range, or the incident of a number, newest first.
SELECT i.incident_id, i.machine_id, m.name AS machine, i.kind, i.state, i.severity,
       i.started_at, i.told_at, i.ended_at, i.last_at, i.reason, i.peak_score, i.excess_kwh, i.readings,
       i.origin::text AS origin, i.merged_into, i.acknowledged_by, i.acknowledged_at,
       i.settled, m.site, m.time_zone
  FROM anomaly.incidents i
  JOIN anomaly.machines m USING (machine_id)
 WHERE i.state = ANY (:states)
   AND (CAST(:incident_id AS bigint) IS NULL OR i.incident_id = :incident_id)
   AND (CAST(:machine_id AS integer) IS NULL OR i.machine_id = :machine_id)
   AND (CAST(:start AS timestamptz) IS NULL OR coalesce(i.ended_at, 'infinity') > :start)
   AND (CAST(:end AS timestamptz) IS NULL OR i.started_at < :end)
 ORDER BY i.started_at DESC, i.incident_id DESC
