-- Readings of a long meter table as fixed-width binary rows (no NULLs: an empty
-- reading is NaN, an unknown ingested_at is -infinity). A machine that is not
-- registered yet has first appeared just now: it is left to the next run.
COPY (
    SELECT {timestamp}, {ingested_at}, m.machine_id, {reading}
      FROM {table} AS s
      JOIN anomaly.machines AS m ON m.source_key = s.{machine}::text
     WHERE s.{timestamp} >= {start} AND s.{timestamp} < {end}
       AND ({machines}::integer[] IS NULL OR m.machine_id = ANY ({machines}::integer[]))
) TO STDOUT (FORMAT binary)
