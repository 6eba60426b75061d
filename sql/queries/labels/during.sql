-- Labels of some machines that overlap a range, up to the number of a label if one is given.
-- Labels that were taken back by then do not count.
SELECT machine_id, label, lower(during) AS starts_at, upper(during) AS ends_at
  FROM anomaly.labels
 WHERE machine_id = ANY (:machines)
   AND during && tstzrange(:start, :end, '[]')
   AND (CAST(:through AS bigint) IS NULL OR label_id <= :through)
   AND (withdrawn_as IS NULL OR withdrawn_as > CAST(:through AS bigint))
 ORDER BY label_id
