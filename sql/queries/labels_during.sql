-- What people said of some machines about a range of time; up to a label, where one is given.
SELECT machine_id, label, lower(during) AS starts_at, upper(during) AS ends_at
  FROM anomaly.labels
 WHERE machine_id = ANY (:machines)
   AND during && tstzrange(:start, :end, '[]')
   AND (CAST(:through AS bigint) IS NULL OR label_id <= :through)
 ORDER BY label_id
