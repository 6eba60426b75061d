-- Every table and view of the product with every column, and what their comments say.
SELECT n.nspname AS schema, c.relname AS name, c.relkind IN ('v', 'm') AS is_view,
       obj_description(c.oid, 'pg_class') AS about,
       a.attname AS column_name, format_type(a.atttypid, a.atttypmod) AS type,
       a.attnotnull AS filled, col_description(c.oid, a.attnum) AS meaning
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
 WHERE n.nspname IN ('anomaly', 'bi') AND c.relkind IN ('r', 'p', 'v', 'm')
   AND NOT c.relispartition
 ORDER BY n.nspname DESC, c.relname, a.attnum
