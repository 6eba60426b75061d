-- The roles that tasks and commands act as, and whether this log-in may act as each.
SELECT wanted.name, r.oid IS NOT NULL AS exists,
       coalesce(pg_has_role(session_user, r.oid,
                            CASE WHEN current_setting('server_version_num')::int >= 160000
                                 THEN 'SET' ELSE 'MEMBER' END), false) AS is_granted
  FROM unnest(ARRAY['anomaly_owner', 'anomaly_scorer', 'anomaly_trainer', 'anomaly_api']) AS wanted (name)
  LEFT JOIN pg_roles r ON r.rolname = wanted.name
