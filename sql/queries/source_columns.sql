-- Columns of the meter table as its owner made them, with their types. A column of a domain
-- has the type below it; scale says how many decimals a numeric keeps (NULL: any).
WITH RECURSIVE columns AS (
    SELECT a.attnum, a.attname, a.atttypid AS type_id, a.atttypmod AS modifier
      FROM pg_attribute a
      JOIN pg_class c ON c.oid = a.attrelid
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = :schema AND c.relname = :table AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT columns.attnum, columns.attname, t.typbasetype, t.typtypmod
      FROM columns JOIN pg_type t ON t.oid = columns.type_id
     WHERE t.typtype = 'd'
)
SELECT columns.attname AS name, format_type(type_id, NULL) AS type,
       CASE WHEN modifier >= 4 THEN ((modifier - 4) & 2047) # 1024 - 1024 END AS scale
  FROM columns JOIN pg_type t ON t.oid = columns.type_id
 WHERE t.typtype <> 'd'
 ORDER BY attnum
