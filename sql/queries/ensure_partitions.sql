-- Partitions for what is about to be inserted; a window that leaps over an empty
-- decade needs none for it.
SELECT anomaly.ensure_partitions(min(utc_timestamp), max(utc_timestamp))
  FROM pg_temp.staged_results
HAVING count(*) > 0
