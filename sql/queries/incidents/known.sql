-- Incidents in any state that overlap the range of their machine.
SELECT i.incident_id, i.machine_id, i.kind, i.started_at, i.last_at, i.told_at, i.ended_at, i.readings,
       i.peak_score, i.severity, i.reason, i.excess_kwh, i.state, i.settled, i.merged_into,
       i.acknowledged_at IS NOT NULL AS acknowledged
  FROM unnest(CAST(:machines AS integer[]), CAST(:starts AS timestamptz[]),
              CAST(:ends AS timestamptz[])) AS range (machine_id, starts_at, ends_at)
  JOIN anomaly.incidents i
    ON i.machine_id = range.machine_id
   AND i.started_at <= range.ends_at AND i.last_at >= range.starts_at
 ORDER BY i.incident_id
