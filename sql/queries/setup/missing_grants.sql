-- Of the rights that sql/grants.sql gives, one of each role; a restore may have lost them all.
SELECT wanted.role || ' ' || wanted.action || ' ON ' || wanted.relation AS missing
  FROM (VALUES ('anomaly_scorer', 'anomaly.anomaly_results', 'INSERT'),
               ('anomaly_scorer', 'anomaly.scoring_runs', 'INSERT'),
               ('anomaly_scorer', 'anomaly.locks', 'UPDATE'),
               ('anomaly_trainer', 'anomaly.model_versions', 'INSERT'),
               ('anomaly_trainer', 'anomaly.model_in_force', 'INSERT'),
               ('anomaly_api', 'anomaly.model_in_force', 'SELECT'),
               ('anomaly_bi', 'bi.verdicts', 'SELECT')) AS wanted (role, relation, action)
 WHERE NOT has_any_column_privilege(role, relation, action)
 UNION ALL
SELECT 'anomaly_scorer EXECUTE ON FUNCTION anomaly_reading.read_source'
 WHERE coalesce(NOT has_function_privilege(
                    'anomaly_scorer', to_regprocedure('anomaly_reading.read_source(text)'),
                    'EXECUTE'), true)
