-- Timestamps of the meter table with a reading, from a moment on and before another.
SELECT DISTINCT {timestamp}
  FROM {table} AS s
 WHERE {timestamp} >= {start} AND {timestamp} < {end} AND ({has_reading})
 ORDER BY 1
