-- Months of results that are no partition of anomaly.anomaly_results any more.
SELECT c.relname AS name
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = 'anomaly' AND c.relkind = 'r'
   AND c.relname ~ '^anomaly_results_[0-9]{4}_[0-9]{2}$'
   AND NOT EXISTS (SELECT FROM pg_inherits i
                    WHERE i.inhrelid = c.oid AND NOT i.inhdetachpending)
 ORDER BY c.relname
