-- What did operators see at a given moment? Current verdicts written by then,
-- and replaced ones that were current then.

CREATE FUNCTION anomaly.anomaly_results_as_of(moment timestamptz)
RETURNS TABLE (
    machine_id integer, utc_timestamp timestamptz, reading double precision,
    power_kw double precision, power_diff double precision,
    anomaly_score double precision, threshold double precision, anomaly smallint,
    reason text, quality anomaly.reading_quality, origin anomaly.run_origin,
    model_version integer, run_id bigint, scored_at timestamptz
)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT r.machine_id, r.utc_timestamp, r.reading, r.power_kw, r.power_diff, r.anomaly_score,
           r.threshold, r.anomaly, r.reason, r.quality, r.origin, r.model_version, r.run_id,
           r.scored_at
      FROM anomaly.anomaly_results r
     WHERE r.scored_at <= moment
     UNION ALL
    SELECT h.machine_id, h.utc_timestamp, h.reading, h.power_kw, h.power_diff, h.anomaly_score,
           h.threshold, h.anomaly, h.reason, h.quality, h.origin, h.model_version, h.run_id,
           h.scored_at
      FROM anomaly.anomaly_results_history h
     WHERE h.scored_at <= moment AND moment < h.superseded_at
$$;
COMMENT ON FUNCTION anomaly.anomaly_results_as_of(timestamptz) IS
    'The results table as it stood at a moment: answers "what did operators see then?"';
REVOKE ALL ON FUNCTION anomaly.anomaly_results_as_of(timestamptz) FROM PUBLIC;
