-- Whether every log-in may create objects in the schema public.
SELECT EXISTS (
    SELECT FROM pg_namespace n
     CROSS JOIN LATERAL aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) AS granted
     WHERE n.nspname = 'public' AND granted.grantee = 0 AND granted.privilege_type = 'CREATE')
