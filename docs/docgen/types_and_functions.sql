-- The product's types with their values, and its functions with their arguments.
SELECT 'type' AS kind, 'anomaly.' || t.typname AS name, obj_description(t.oid, 'pg_type') AS about,
       (SELECT string_agg(e.enumlabel, ', ' ORDER BY e.enumsortorder)
          FROM pg_enum e
         WHERE e.enumtypid = t.oid) AS details
  FROM pg_type t
 WHERE t.typnamespace = 'anomaly'::regnamespace AND t.typtype = 'e'
 UNION ALL
SELECT 'function', n.nspname || '.' || p.proname, obj_description(p.oid, 'pg_proc'),
       pg_get_function_identity_arguments(p.oid)
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
 WHERE n.nspname IN ('anomaly', 'anomaly_reading')
 ORDER BY kind DESC, name
