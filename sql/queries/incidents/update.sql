-- Update known incidents.
UPDATE anomaly.incidents i
   SET started_at = new.started_at, last_at = new.last_at, told_at = new.told_at,
       ended_at = new.ended_at,
       readings = new.readings, peak_score = new.peak_score, severity = new.severity,
       reason = new.reason, excess_kwh = new.excess_kwh, state = new.state,
       settled = new.settled,
       merged_into = new.merged_into, updated_at = :at
  FROM jsonb_to_recordset(CAST(:incidents AS jsonb)) AS new (
       incident_id bigint, started_at timestamptz, last_at timestamptz, told_at timestamptz,
       ended_at timestamptz,
       readings integer, peak_score double precision, severity text, reason text,
       excess_kwh double precision, state text, settled boolean, merged_into bigint)
 WHERE i.incident_id = new.incident_id
