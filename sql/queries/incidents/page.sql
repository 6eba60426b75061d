-- Incidents that overlap a range, newest first, before the last one of the page before.
SELECT incident_id, machine_id, machine, site, kind, state, severity, started_at, ended_at, reason,
       peak_score, excess_kwh, readings, label, acknowledged_by, updated_at
  FROM bi.incidents
 WHERE (CAST(:before AS bigint) IS NULL OR incident_id < :before)
   AND (CAST(:machine_id AS integer) IS NULL OR machine_id = :machine_id)
   AND (CAST(:start AS timestamptz) IS NULL OR coalesce(ended_at, 'infinity') > :start)
   AND (CAST(:end AS timestamptz) IS NULL OR started_at < :end)
   AND (CAST(:state AS text) IS NULL OR state = :state)
   AND (CAST(:kind AS text) IS NULL OR kind = :kind)
   AND (CAST(:severity AS text) IS NULL OR severity = :severity)
 ORDER BY incident_id DESC
 LIMIT :rows
