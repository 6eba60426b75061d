-- The roles, each with the least it needs; run by `anomaly migrate`, safe to repeat.
--
-- Nobody logs in as one of these: a login is made a member, and a task becomes
-- its role with SET ROLE. Roles belong to the whole cluster, so another
-- database may have made them already, perhaps at this very moment.

DO $$
DECLARE
    role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY[
        'anomaly_owner', 'anomaly_source', 'anomaly_scorer', 'anomaly_trainer', 'anomaly_api',
        'anomaly_bi'
    ] LOOP
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
                EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
            END IF;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;
        END;
    END LOOP;

    -- The login that migrates may act as the roles that tasks take on. One that
    -- made the roles is a member without the right to SET ROLE (Postgres 16), so
    -- it is granted in any case; superusers need no grant.
    IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        FOREACH role_name IN ARRAY ARRAY[
            'anomaly_owner', 'anomaly_scorer', 'anomaly_trainer', 'anomaly_api'
        ] LOOP
            BEGIN
                EXECUTE format('GRANT %I TO CURRENT_USER', role_name);
            EXCEPTION WHEN internal_error THEN
                NULL; -- another database of the cluster grants the same just now
            END;
        END LOOP;
    END IF;

    -- Who may read the meter table: one role to grant it to, three that have it.
    FOREACH role_name IN ARRAY ARRAY['anomaly_scorer', 'anomaly_trainer', 'anomaly_api'] LOOP
        IF NOT pg_has_role(role_name, 'anomaly_source', 'MEMBER') THEN
            BEGIN
                EXECUTE format('GRANT anomaly_source TO %I', role_name);
            EXCEPTION WHEN internal_error THEN
                NULL;
            END;
        END IF;
    END LOOP;

    EXECUTE format('GRANT CREATE ON DATABASE %I TO anomaly_owner', current_database());
END
$$;
