-- Rows of a long meter table at some local times, with the time at which each was written
-- (microseconds since 2000).
SELECT ctid::text, {timestamp}, {machine}::text, {value}::double precision, {written}
  FROM {table}
 WHERE {timestamp} = ANY ({stamps}::timestamp[]) AND {machine}::text = ANY ({machines}::text[])
 ORDER BY ctid
