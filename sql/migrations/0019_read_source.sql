-- Reading the meter table: a view in its place may call any function of its owner's. What is called
-- from here has the rights of anomaly_source alone, and can take on no other role: Postgres
-- refuses SET ROLE inside a function that acts as its owner.

CREATE FUNCTION anomaly.read_source(query text) RETURNS SETOF record
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY EXECUTE query;
    -- Rows that were returned stay. A setting that a called function has changed is undone.
    RAISE EXCEPTION USING ERRCODE = 'AN001';
EXCEPTION WHEN SQLSTATE 'AN001' THEN
    RETURN;
END
$$;
COMMENT ON FUNCTION anomaly.read_source(text) IS
    'Rows of a query, read with the rights of anomaly_source and no others';
REVOKE ALL ON FUNCTION anomaly.read_source(text) FROM PUBLIC;

-- Who owns a function must be allowed to create in its schema, at that moment.
GRANT USAGE, CREATE ON SCHEMA anomaly TO anomaly_source;
ALTER FUNCTION anomaly.read_source(text) OWNER TO anomaly_source;
REVOKE CREATE ON SCHEMA anomaly FROM anomaly_source;
