-- Whether anomaly_source may already read the meter table.
SELECT coalesce(bool_or(has_schema_privilege('anomaly_source', n.oid, 'USAGE')
                        AND has_table_privilege('anomaly_source', c.oid, 'SELECT')), false)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = :schema AND c.relname = :table
