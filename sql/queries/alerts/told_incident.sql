-- What a message about an incident would tell now.
SELECT CAST(:event AS text) AS event, i.kind, i.severity, '' AS says,
       CAST(:at AS timestamptz) AS created_at, i.incident_id,
       i.machine_id, m.name AS machine, coalesce(m.site, '') AS site, m.clock, i.state,
       i.started_at, i.last_at, i.ended_at, i.settled, i.reason, i.severity AS severity_now,
       i.excess_kwh, i.acknowledged_by, p.price_per_kwh, p.currency
  FROM anomaly.incidents i
  JOIN anomaly.machines m ON m.machine_id = i.machine_id
  LEFT JOIN anomaly.sites s ON s.name = m.site
  LEFT JOIN anomaly.price_periods p
    ON p.site_id = s.site_id
   AND (i.started_at AT TIME ZONE m.clock)::date >= p.starts
   AND (i.started_at AT TIME ZONE m.clock)::date < p.ends
 WHERE i.incident_id = :incident_id
