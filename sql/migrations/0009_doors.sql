-- Ways of working and doors that are shut: locks that only our roles can hold, roll-backs that
-- a kill does not repeat, and a month of results that somebody has detached.

-- An advisory lock can be taken by its name by every log-in of the database; a row of this
-- table by those only that may update it.
CREATE TABLE anomaly.locks (
    name text PRIMARY KEY
);
COMMENT ON TABLE anomaly.locks IS
    'What is done by one transaction at a time: each locks its row until it ends';
COMMENT ON COLUMN anomaly.locks.name IS 'publishing, machines or versions';
INSERT INTO anomaly.locks VALUES ('publishing'), ('machines'), ('versions');

ALTER TABLE anomaly.model_in_force ADD COLUMN unfinished boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN anomaly.model_in_force.unfinished IS
    'Its readings are being scored anew, or the command was killed: the same command finishes it';

CREATE OR REPLACE FUNCTION anomaly.ensure_partitions(first_moment timestamptz, end_moment timestamptz)
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
    bounds      text;
    made        integer := 0;
BEGIN
    -- Who publishes holds it already.
    PERFORM FROM anomaly.locks WHERE name = 'publishing' FOR UPDATE;
    IF last_month - month_start > interval '200 years' THEN
        RAISE EXCEPTION 'ensure_partitions: % to % is longer than 200 years', first_moment, end_moment;
    END IF;
    WHILE month_start <= last_month LOOP
        part := format('anomaly_results_%s', to_char(month_start, 'YYYY_MM'));
        bounds := format('FOR VALUES FROM (%L) TO (%L)', month_start AT TIME ZONE 'UTC',
                         (month_start + interval '1 month') AT TIME ZONE 'UTC');
        IF to_regclass(format('anomaly.%I', part)) IS NULL THEN
            EXECUTE format(
                'CREATE TABLE anomaly.%I (LIKE anomaly.anomaly_results INCLUDING ALL)', part);
            EXECUTE format(
                'ALTER TABLE anomaly.anomaly_results ATTACH PARTITION anomaly.%I %s', part, bounds);
            EXECUTE format('COMMENT ON TABLE anomaly.%I IS %L', part,
                           'Verdicts of ' || to_char(month_start, 'YYYY-MM') || ' (UTC)');
            made := made + 1;
        ELSIF NOT EXISTS (SELECT FROM pg_inherits
                           WHERE inhrelid = to_regclass(format('anomaly.%I', part))
                             AND inhparent = 'anomaly.anomaly_results'::regclass
                             AND NOT inhdetachpending) THEN
            RAISE object_not_in_prerequisite_state USING MESSAGE = format(
                'the results of %s are detached: anomaly.%I is no partition of '
                'anomaly.anomaly_results; let its owner run ALTER TABLE anomaly.anomaly_results '
                'ATTACH PARTITION anomaly.%I %s',
                to_char(month_start, 'YYYY-MM'), part, part, bounds);
        END IF;
        month_start := month_start + interval '1 month';
    END LOOP;
    RETURN made;
END
$$;
