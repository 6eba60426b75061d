-- Why somebody else could run what he likes with the product's rights, when this log-in writes to a
-- table: it may act as one of the product's roles, and the table is not all its own.
WITH login AS (
    SELECT oid, rolname, rolsuper FROM pg_roles WHERE rolname = session_user
), target AS (
    SELECT c.oid, c.relkind, c.relowner
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = :schema AND c.relname = :table
), part AS (
    SELECT c.oid, c.relowner, c.relacl
      FROM target
     CROSS JOIN LATERAL (SELECT target.oid UNION
                         SELECT relid FROM pg_partition_tree(target.oid)) AS tree (oid)
      JOIN pg_class c ON c.oid = tree.oid
), called AS (
    SELECT p.proowner
      FROM part
      JOIN pg_trigger t ON t.tgrelid = part.oid
      JOIN pg_proc p ON p.oid = t.tgfoid
    UNION ALL
    SELECT p.proowner
      FROM part
      JOIN LATERAL (SELECT 'pg_constraint'::regclass AS class, oid FROM pg_constraint
                     WHERE conrelid = part.oid
                    UNION ALL
                    SELECT 'pg_attrdef'::regclass, oid FROM pg_attrdef WHERE adrelid = part.oid
                    UNION ALL
                    SELECT 'pg_class'::regclass, indexrelid FROM pg_index
                     WHERE indrelid = part.oid) AS has ON true
      JOIN pg_depend d ON d.classid = has.class AND d.objid = has.oid
                      AND d.refclassid = 'pg_proc'::regclass
      JOIN pg_proc p ON p.oid = d.refobjid
)
SELECT login.rolname AS login, pg_get_userbyid(target.relowner) AS owner
  FROM target CROSS JOIN login
 WHERE EXISTS (SELECT FROM pg_roles ours
                WHERE ours.rolname IN ('anomaly_owner', 'anomaly_scorer', 'anomaly_trainer',
                                       'anomaly_api')
                  AND pg_has_role(login.oid, ours.oid, 'MEMBER'))
   AND (target.relkind NOT IN ('r', 'p')
        OR EXISTS (SELECT FROM part WHERE part.relowner <> login.oid)
        OR EXISTS (SELECT FROM part CROSS JOIN LATERAL aclexplode(part.relacl) AS granted
                    WHERE granted.privilege_type = 'TRIGGER' AND granted.grantee <> login.oid)
        OR EXISTS (SELECT FROM called JOIN pg_roles writer ON writer.oid = called.proowner
                    WHERE called.proowner <> login.oid AND NOT writer.rolsuper))
