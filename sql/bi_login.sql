-- What a BI log-in may do; an administrator runs this in the product's database, safe to repeat.
--
-- Who: SET anomaly.bi_login = 'plant_dashboard';

DO $$
DECLARE
    login  text := current_setting('anomaly.bi_login');
    bound  text;
    writer text;
BEGIN
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), login);
    IF NOT pg_has_role(login, 'anomaly_bi', 'MEMBER') THEN
        EXECUTE format('GRANT anomaly_bi TO %I', login);
    END IF;

    -- A membership does not hand on settings, so the log-in has its own.
    FOREACH bound IN ARRAY ARRAY[
        'SET default_transaction_read_only = on',
        'SET statement_timeout = ''60s''',
        'SET idle_in_transaction_session_timeout = ''5min''',
        'CONNECTION LIMIT 20'
    ] LOOP
        EXECUTE format('ALTER ROLE %I %s', login, bound);
    END LOOP;

    -- What Postgres lets every log-in do unless that is revoked: objects in public, temporary
    -- tables and functions, large objects.
    REVOKE CREATE ON SCHEMA public FROM PUBLIC;
    EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO anomaly_owner, anomaly_scorer',
                   current_database());
    FOR writer IN
        SELECT oid::regprocedure::text FROM pg_proc
         WHERE pronamespace = 'pg_catalog'::regnamespace
           AND (proname LIKE 'lo\_%' OR proname IN ('loread', 'lowrite'))
    LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', writer);
    END LOOP;
END
$$;
