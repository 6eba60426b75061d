-- Readings of a long meter table, to be copied as fixed-width binary rows (no NULLs: an empty
-- reading is NaN, an unknown ingested_at is -infinity). A machine that is not
-- registered yet gets an id that no machine has.
SELECT {timestamp}, {ingested_at}, coalesce(m.machine_id, {unregistered}::integer), {reading}
  FROM {table} AS s
  LEFT JOIN anomaly.machines AS m ON m.source_key = s.{machine}::text
 WHERE s.{machine} IS NOT NULL AND s.{timestamp} >= {start} AND s.{timestamp} < {end}
   AND ({machines}::integer[] IS NULL OR m.machine_id = ANY ({machines}::integer[]))
