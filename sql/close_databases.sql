-- Let no log-in into a database that is not its own, unless it is granted CONNECT there; safe to
-- repeat. An administrator runs this where the product has the cluster for itself. Who owns a
-- database may connect anyway.

DO $$
DECLARE
    name text;
BEGIN
    FOR name IN SELECT datname FROM pg_database LOOP
        EXECUTE format('REVOKE CONNECT ON DATABASE %I FROM PUBLIC', name);
    END LOOP;
END
$$;
