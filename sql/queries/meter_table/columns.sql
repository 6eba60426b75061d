-- Columns of a table in their order, with their types. For a domain, the type that it is based
-- on is given. scale is the number of decimals of a numeric (NULL: any).
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
