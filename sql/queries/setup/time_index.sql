-- What the meter table is (r: a table, p: a partitioned one, v: a view, ...), and whether an index
-- begins with its time column, or has it behind the machine's.
SELECT c.relkind::text AS kind,
       EXISTS (SELECT FROM pg_index i
                 JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
                WHERE i.indrelid = c.oid AND a.attname = :column) AS is_indexed
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = :schema AND c.relname = :table
