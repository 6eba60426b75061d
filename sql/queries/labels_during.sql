-- What people said of some machines about a range of time.
SELECT machine_id, label, lower(during) AS starts_at, upper(during) AS ends_at
  FROM anomaly.labels
 WHERE machine_id = ANY (:machines)
   AND during && tstzrange(:start, :end, '[]')
 ORDER BY label_id
