-- The newest incidents.
SELECT started_at AS utc, machine, kind, state, severity, duration_hours AS hours,
       excess_kwh AS "excess kWh", reason
  FROM bi.incidents
 ORDER BY started_at DESC, incident_id DESC
 LIMIT 8
