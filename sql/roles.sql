-- The roles, each with the least rights that it needs; run by `anomaly migrate`, safe to repeat.
--
-- Nobody logs in as one of these roles. A log-in is made a member, and a task acts as its role
-- with SET ROLE. Roles belong to the whole cluster, so another database may have created them
-- already, or may be creating them at the same time.

DO $$
DECLARE
    role_name text;
    elsewhere text;
    -- Before Postgres 16 every member may SET ROLE; since 16 that is a separate right.
    acting    text := CASE WHEN current_setting('server_version_num')::int >= 160000
                           THEN 'SET' ELSE 'MEMBER' END;
BEGIN
    -- Roles belong to the cluster: the owner of one deployment must not own another one.
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'anomaly_owner')
       AND NOT pg_has_role(current_user, 'anomaly_owner', 'MEMBER') THEN
        SELECT min(d.datname) INTO elsewhere
          FROM pg_shdepend s
          JOIN pg_database d ON d.oid = s.dbid AND d.datname <> current_database()
         WHERE s.refclassid = 'pg_authid'::regclass AND s.deptype = 'o'
           AND s.refobjid = (SELECT oid FROM pg_roles WHERE rolname = 'anomaly_owner');
        IF elsewhere IS NOT NULL THEN
            RAISE invalid_role_specification USING MESSAGE = format(
                'this cluster has a deployment already, in database %s, and roles are the '
                'cluster''s: whoever owns this one would own that one too', elsewhere);
        END IF;
        RAISE insufficient_privilege USING MESSAGE = format(
            '%I is no member of anomaly_owner, which this cluster has already', current_user);
    END IF;

    FOREACH role_name IN ARRAY ARRAY[
        'anomaly_owner', 'anomaly_source', 'anomaly_reader', 'anomaly_scorer', 'anomaly_trainer',
        'anomaly_api', 'anomaly_bi'
    ] LOOP
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
                EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
                -- For a log-in that is this role itself; tasks use SET ROLE and set their own
                -- limits. The limits are chosen.
                EXECUTE format('ALTER ROLE %I SET statement_timeout = %L', role_name,
                               CASE role_name WHEN 'anomaly_bi' THEN '60s' ELSE '15min' END);
                EXECUTE format('ALTER ROLE %I SET lock_timeout = %L', role_name, '30s');
                EXECUTE format('ALTER ROLE %I SET idle_in_transaction_session_timeout = %L',
                               role_name, CASE role_name WHEN 'anomaly_bi' THEN '5min'
                                                         ELSE '30min' END);
            END IF;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;
        END;
    END LOOP;

    -- The log-in that migrates may act as the roles that tasks use. If an administrator has
    -- granted them already, there is nothing to do.
    FOREACH role_name IN ARRAY ARRAY[
        'anomaly_owner', 'anomaly_scorer', 'anomaly_trainer', 'anomaly_api'
    ] LOOP
        IF NOT pg_has_role(current_user, role_name, acting) THEN
            BEGIN
                EXECUTE format('GRANT %I TO CURRENT_USER', role_name);
            EXCEPTION WHEN internal_error THEN
                NULL; -- another database of the cluster grants the same at this moment
            END;
        END IF;
    END LOOP;

    -- The right to read the meter table is granted to one role. A function reads it as
    -- anomaly_reader; of that role only the owner is a member, who made the function.
    IF NOT pg_has_role('anomaly_owner', 'anomaly_reader', 'MEMBER') THEN
        BEGIN
            GRANT anomaly_reader TO anomaly_owner;
        EXCEPTION WHEN internal_error THEN
            NULL;
        END;
    END IF;
    FOREACH role_name IN ARRAY ARRAY[
        'anomaly_reader', 'anomaly_scorer', 'anomaly_trainer', 'anomaly_api'
    ] LOOP
        IF NOT pg_has_role(role_name, 'anomaly_source', 'MEMBER') THEN
            BEGIN
                EXECUTE format('GRANT anomaly_source TO %I', role_name);
            EXCEPTION WHEN internal_error THEN
                NULL;
            END;
        END IF;
    END LOOP;

    IF NOT has_database_privilege('anomaly_owner', current_database(), 'CREATE') THEN
        BEGIN
            EXECUTE format('GRANT CREATE ON DATABASE %I TO anomaly_owner', current_database());
        EXCEPTION WHEN internal_error THEN
            NULL; -- another migration of this database grants the same at this moment
        END;
    END IF;
    IF NOT has_database_privilege('anomaly_owner', current_database(), 'CREATE') THEN
        RAISE insufficient_privilege USING MESSAGE =
            format('this login may not grant CREATE on database %s to anomaly_owner',
                   current_database());
    END IF;
END
$$;
