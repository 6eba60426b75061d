-- Columns of the meter table as its owner made them, with their types.
SELECT a.attname AS name, format_type(a.atttypid, NULL) AS type
  FROM pg_attribute a
  JOIN pg_class c ON c.oid = a.attrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = :schema AND c.relname = :table AND a.attnum > 0 AND NOT a.attisdropped
 ORDER BY a.attnum
