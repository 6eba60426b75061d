-- Insert new incidents.
INSERT INTO anomaly.incidents (
    machine_id, kind, started_at, last_at, told_at, ended_at, readings, peak_score, severity,
    reason, excess_kwh, state, settled, origin, opened_at, updated_at)
SELECT machine_id, kind, started_at, last_at, told_at, ended_at, readings, peak_score, severity,
       reason, excess_kwh, state, settled, CAST(:origin AS anomaly.run_origin), :at, :at
  FROM jsonb_to_recordset(CAST(:incidents AS jsonb)) AS new (
       machine_id integer, kind text, started_at timestamptz, last_at timestamptz,
       told_at timestamptz, ended_at timestamptz, readings integer, peak_score double precision, severity text,
       reason text, excess_kwh double precision, state text, settled boolean)
 ORDER BY started_at, machine_id, kind
RETURNING incident_id, machine_id, kind, started_at
