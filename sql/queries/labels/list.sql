-- Labels, newest first: of a machine, in a range, with or without those taken back.
SELECT l.label_id, l.machine_id, m.name AS machine, m.time_zone, l.label,
       lower(l.during) AS starts_at, upper(l.during) AS ends_at, l.note,
       l.labelled_by, l.labelled_at, l.withdrawn_by, l.withdrawn_at
  FROM anomaly.labels l
  JOIN anomaly.machines m USING (machine_id)
 WHERE (:withdrawn OR l.withdrawn_at IS NULL)
   AND (CAST(:machine_id AS integer) IS NULL OR l.machine_id = :machine_id)
   AND l.during && tstzrange(CAST(:start AS timestamptz), CAST(:end AS timestamptz))
 ORDER BY l.label_id DESC
