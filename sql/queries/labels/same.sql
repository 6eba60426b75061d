-- A label that already says the same, unless a later label on the same time overruled it.
SELECT l.label_id, m.name AS machine
  FROM anomaly.labels l
  JOIN anomaly.machines m USING (machine_id)
 WHERE l.machine_id = :machine_id AND l.during = tstzrange(:start, :end) AND l.label = :label
   AND l.note = :note AND l.labelled_by = :by AND l.withdrawn_at IS NULL
   AND NOT EXISTS (SELECT FROM anomaly.labels later
                    WHERE later.machine_id = l.machine_id AND later.label_id > l.label_id
                      AND later.during && l.during)
