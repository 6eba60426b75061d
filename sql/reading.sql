-- How the meter table is read; run by `anomaly migrate` as anomaly_owner, safe to repeat.
--
-- A view in its place may call any function of its owner's. What is called
-- from here has the rights of anomaly_reader alone, and can take on no other role: Postgres
-- refuses SET ROLE inside a function that acts as its owner.

-- A schema of its own: who owns a function must be allowed to create in its schema, also while a
-- dump is restored, which grants rights at its end.
CREATE SCHEMA IF NOT EXISTS anomaly_reading AUTHORIZATION anomaly_reader;
COMMENT ON SCHEMA anomaly_reading IS 'How anomaly_reader, which nobody acts as, reads the meter table';

CREATE OR REPLACE FUNCTION anomaly_reading.read_source(query text) RETURNS SETOF record
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    is_whole boolean := false;
BEGIN
    -- A restore without owners, for one, would make it act as somebody with more rights.
    IF current_user <> 'anomaly_reader' THEN
        RAISE object_not_in_prerequisite_state USING MESSAGE = format(
            'anomaly_reading.read_source acts as %I: run `anomaly migrate`; where that is refused, '
            'let an administrator make anomaly_reader its owner', current_user);
    END IF;
    RETURN QUERY EXECUTE query;
    is_whole := true;
    -- Rows that were returned stay. What a called function has set or written is undone.
    RAISE EXCEPTION USING ERRCODE = 'AN001';
EXCEPTION WHEN SQLSTATE 'AN001' THEN
    IF NOT is_whole THEN
        RAISE;
    END IF;
END
$$;
COMMENT ON FUNCTION anomaly_reading.read_source(text) IS
    'Rows of a query, read with the rights of anomaly_reader and no others';
ALTER FUNCTION anomaly_reading.read_source(text) OWNER TO anomaly_reader;
