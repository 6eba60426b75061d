-- Readings of a long meter table whose machines are numbers, to be copied like those of
-- read_long. Each machine is given by its number in the table, not by its id.
SELECT {timestamp}, {ingested_at}, s.{machine}::bigint, {reading}
  FROM {table} AS s
 WHERE s.{machine} IS NOT NULL AND s.{timestamp} >= {start} AND s.{timestamp} < {end}
