-- Timestamps in a range whose readings were written or corrected since a moment.
SELECT DISTINCT {timestamp}
  FROM {table}
 WHERE {ingested_at} >= {since} AND {timestamp} >= {start} AND {timestamp} < {end}
 ORDER BY 1
