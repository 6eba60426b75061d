-- The last timestamp of the meter table with a reading, at or after one moment and before
-- another.
SELECT max({timestamp})
  FROM {table} AS s
 WHERE {timestamp} >= {start} AND {timestamp} < {end} AND ({has_reading})
