-- Readings of a wide meter table as fixed-width binary rows (no NULLs: an empty
-- cell is NaN, an unknown ingested_at is -infinity).
COPY (
    SELECT {timestamp}, {ingested_at}, {meters}
      FROM {table} AS s
     WHERE {timestamp} >= {start} AND {timestamp} < {end}
) TO STDOUT (FORMAT binary)
