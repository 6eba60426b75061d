-- How long verdicts, replaced verdicts and the ledger are kept: functions that the scorer may call
-- without the right to delete from the tables. None deletes what is younger than four weeks, so
-- that who has the scorer's rights cannot wipe out traces of today.

CREATE FUNCTION anomaly.refuse_young(moment timestamptz)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF moment > now() - interval '28 days' THEN
        RAISE object_not_in_prerequisite_state USING MESSAGE = format(
            '%s is less than four weeks ago: what is younger than that is never deleted', moment);
    END IF;
END
$$;
COMMENT ON FUNCTION anomaly.refuse_young(timestamptz) IS
    'Refuses a moment before which deleting would take what is younger than four weeks';

CREATE FUNCTION anomaly.drop_results_before(moment timestamptz)
RETURNS integer
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
-- Dropping a month waits for those who read the results, and those who come after wait for it:
-- it gives up soon, and the next day's run tries again.
SET lock_timeout = '5s'
AS $$
DECLARE
    part    record;
    dropped integer := 0;
BEGIN
    PERFORM anomaly.refuse_young(moment);
    FOR part IN
        SELECT c.relname
          FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
         WHERE i.inhparent = 'anomaly.anomaly_results'::regclass
           AND c.relname ~ '^anomaly_results_[0-9]{4}_[0-9]{2}$'
           AND (to_date(right(c.relname, 7), 'YYYY_MM') + interval '1 month') AT TIME ZONE 'UTC'
               <= moment
         ORDER BY c.relname
    LOOP
        EXECUTE format('DROP TABLE anomaly.%I', part.relname);
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END
$$;
COMMENT ON FUNCTION anomaly.drop_results_before(timestamptz) IS
    'Drops the months of anomaly_results that end before a moment; returns how many';

-- As many rows at once as end within any time limit; the caller repeats it until none is left.
CREATE FUNCTION anomaly.delete_history_before(moment timestamptz, most integer)
RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    deleted bigint;
BEGIN
    PERFORM anomaly.refuse_young(moment);
    DELETE FROM anomaly.anomaly_results_history
     WHERE ctid = ANY (ARRAY(SELECT ctid FROM anomaly.anomaly_results_history
                              WHERE superseded_at < moment LIMIT most));
    GET DIAGNOSTICS deleted = ROW_COUNT;
    RETURN deleted;
END
$$;
COMMENT ON FUNCTION anomaly.delete_history_before(timestamptz, integer) IS
    'Deletes at most so many verdicts that were replaced before a moment; returns how many';
CREATE INDEX anomaly_results_history_superseded_at
    ON anomaly.anomaly_results_history USING brin (superseded_at);

-- The newest rows stay whatever their age: they say how far scoring has come.
CREATE FUNCTION anomaly.delete_ledger_before(moment timestamptz, most integer)
RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    deleted bigint;
BEGIN
    PERFORM anomaly.refuse_young(moment);
    WITH newest AS MATERIALIZED (
        SELECT max(window_end) FILTER (WHERE origin = 'live') AS watermark,
               max(ingested_through) FILTER (WHERE origin = 'live') AS ingested_through,
               max(written_to) AS written_to,
               max(readings_to) AS readings_to
          FROM anomaly.scoring_runs
    )
    DELETE FROM anomaly.scoring_runs
     WHERE run_id IN (
           SELECT r.run_id
             FROM anomaly.scoring_runs r, newest n
            WHERE r.published_at < moment
              AND NOT (r.origin = 'live' AND r.window_end = n.watermark)
              AND (r.ingested_through = n.ingested_through) IS NOT TRUE
              AND r.written_to <> n.written_to
              AND (r.readings_to = n.readings_to) IS NOT TRUE
            LIMIT most);
    GET DIAGNOSTICS deleted = ROW_COUNT;
    RETURN deleted;
END
$$;
COMMENT ON FUNCTION anomaly.delete_ledger_before(timestamptz, integer) IS
    'Deletes at most so many rows of the ledger from before a moment, but not the newest';

REVOKE ALL ON FUNCTION anomaly.refuse_young(timestamptz), anomaly.drop_results_before(timestamptz),
    anomaly.delete_history_before(timestamptz, integer),
    anomaly.delete_ledger_before(timestamptz, integer) FROM PUBLIC;
