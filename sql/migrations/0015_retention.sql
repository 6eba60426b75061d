-- How long verdicts, replaced verdicts and the ledger are kept: functions that the scorer may call
-- without the right to delete from the tables.

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

CREATE FUNCTION anomaly.delete_history_before(moment timestamptz)
RETURNS bigint
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    WITH deleted AS (
        DELETE FROM anomaly.anomaly_results_history WHERE superseded_at < moment RETURNING 1
    )
    SELECT count(*) FROM deleted
$$;
COMMENT ON FUNCTION anomaly.delete_history_before(timestamptz) IS
    'Deletes verdicts that were replaced before a moment; returns how many';
CREATE INDEX anomaly_results_history_superseded_at
    ON anomaly.anomaly_results_history USING brin (superseded_at);

-- The newest rows stay whatever their age: they say how far scoring has come.
CREATE FUNCTION anomaly.delete_ledger_before(moment timestamptz)
RETURNS bigint
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    WITH newest AS (
        SELECT max(window_end) FILTER (WHERE origin = 'live') AS watermark,
               max(ingested_through) FILTER (WHERE origin = 'live') AS ingested_through,
               max(written_to) AS written_to,
               max(readings_to) AS readings_to
          FROM anomaly.scoring_runs
    ), deleted AS (
        DELETE FROM anomaly.scoring_runs r
         USING newest n
         WHERE r.published_at < moment
           AND NOT (r.origin = 'live' AND r.window_end = n.watermark)
           AND (r.ingested_through = n.ingested_through) IS NOT TRUE
           AND r.written_to <> n.written_to
           AND (r.readings_to = n.readings_to) IS NOT TRUE
        RETURNING 1
    )
    SELECT count(*) FROM deleted
$$;
COMMENT ON FUNCTION anomaly.delete_ledger_before(timestamptz) IS
    'Deletes rows of the ledger that were published before a moment, but not the newest';

REVOKE ALL ON FUNCTION anomaly.drop_results_before(timestamptz),
    anomaly.delete_history_before(timestamptz), anomaly.delete_ledger_before(timestamptz) FROM PUBLIC;
