-- How many rows of the meter table have a reading in one of several ranges, and the first of
-- their timestamps.
SELECT count(*), min({timestamp})
  FROM {table} AS s
 WHERE ({ranges}) AND ({has_reading})
