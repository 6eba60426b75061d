-- Readings of a wide meter table, to be copied as fixed-width binary rows (no NULLs: an empty
-- cell is NaN, an unknown ingested_at is -infinity).
SELECT {timestamp}, {ingested_at}, {meters}
  FROM {table} AS s
 WHERE {timestamp} >= {start} AND {timestamp} < {end}
