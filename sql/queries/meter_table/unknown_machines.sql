-- Ids in a long meter table that anomaly.machines does not know yet.
SELECT DISTINCT s.{machine}::text
  FROM {table} AS s
 WHERE s.{timestamp} >= {start} AND s.{timestamp} < {end}
   AND s.{machine} IS NOT NULL
   AND NOT EXISTS (SELECT FROM anomaly.machines AS m WHERE m.source_key = s.{machine}::text)
 ORDER BY 1
