-- The owner of a table, if what it has put into the table (triggers, checks, defaults) must not
-- run with this log-in's rights: the log-in may act as one of our roles, and the owner may not.
SELECT owner.rolname AS owner, session_user AS login
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_roles owner ON owner.oid = c.relowner
  JOIN pg_roles login ON login.rolname = session_user
 WHERE n.nspname = :schema AND c.relname = :table
   AND (login.rolsuper OR EXISTS (
        SELECT FROM pg_roles ours
         WHERE ours.rolname IN ('anomaly_owner', 'anomaly_scorer', 'anomaly_trainer', 'anomaly_api')
           AND pg_has_role(login.oid, ours.oid, 'MEMBER')))
   AND NOT owner.rolsuper
   AND owner.oid <> login.oid
   AND (login.rolsuper OR NOT pg_has_role(login.oid, owner.oid, 'MEMBER'))
