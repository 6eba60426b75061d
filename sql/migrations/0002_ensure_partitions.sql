-- Monthly partitions of anomaly.anomaly_results, made before a window is published.
--
-- A table is filled and indexed before it is attached, so that readers of the
-- parent wait for milliseconds at most. SECURITY DEFINER: the scorer may call
-- this without owning the table.

CREATE FUNCTION anomaly.ensure_partitions(first_moment timestamptz, end_moment timestamptz)
RETURNS integer
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- Months are counted in UTC, whatever the session's time zone.
    month_start timestamp := date_trunc('month', first_moment AT TIME ZONE 'UTC');
    last_month  timestamp := date_trunc('month', end_moment AT TIME ZONE 'UTC');
    part        text;
    made        integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('anomaly.ensure_partitions'));
    IF last_month - month_start > interval '200 years' THEN
        RAISE EXCEPTION 'ensure_partitions: % to % is longer than 200 years', first_moment, end_moment;
    END IF;
    WHILE month_start <= last_month LOOP
        part := format('anomaly_results_%s', to_char(month_start, 'YYYY_MM'));
        IF to_regclass(format('anomaly.%I', part)) IS NULL THEN
            EXECUTE format(
                'CREATE TABLE anomaly.%I (LIKE anomaly.anomaly_results INCLUDING ALL)', part);
            EXECUTE format(
                'ALTER TABLE anomaly.anomaly_results ATTACH PARTITION anomaly.%I '
                'FOR VALUES FROM (%L) TO (%L)',
                part,
                month_start AT TIME ZONE 'UTC',
                (month_start + interval '1 month') AT TIME ZONE 'UTC');
            EXECUTE format('COMMENT ON TABLE anomaly.%I IS %L', part,
                           'Verdicts of ' || to_char(month_start, 'YYYY-MM') || ' (UTC)');
            made := made + 1;
        END IF;
        month_start := month_start + interval '1 month';
    END LOOP;
    RETURN made;
END
$$;
COMMENT ON FUNCTION anomaly.ensure_partitions(timestamptz, timestamptz) IS
    'Makes the monthly partitions of anomaly_results that a range needs; returns how many were new';
REVOKE ALL ON FUNCTION anomaly.ensure_partitions(timestamptz, timestamptz) FROM PUBLIC;
