-- One label.
SELECT l.machine_id, m.name AS machine, l.label, l.withdrawn_by, l.withdrawn_at,
       greatest(coalesce(lower(l.during), '1970-01-01Z'), '1970-01-01Z') AS starts_at,
       least(coalesce(upper(l.during), '2200-01-01Z'), '2200-01-01Z') AS ends_at
  FROM anomaly.labels l
  JOIN anomaly.machines m USING (machine_id)
 WHERE l.label_id = :label_id
