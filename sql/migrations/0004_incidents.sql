-- Incidents whole: what is usual of a reading, when an incident began and was last
-- seen, who acknowledged it, and an alert budget of a machine's own.

ALTER TABLE anomaly.anomaly_results ADD COLUMN expected_kw double precision;
COMMENT ON COLUMN anomaly.anomaly_results.expected_kw IS
    'Power usual for the machine at that time, kW; empty where the detector knows none';
ALTER TABLE anomaly.anomaly_results_history ADD COLUMN expected_kw double precision;
COMMENT ON COLUMN anomaly.anomaly_results_history.expected_kw IS
    'Power usual for the machine at that time, kW; empty where the detector knows none';

-- What incidents are made of: abnormal readings, and readings behind a gap.
CREATE INDEX anomaly_results_abnormal ON anomaly.anomaly_results (utc_timestamp, machine_id)
    WHERE anomaly = 1 OR quality >= 'gap';

ALTER TABLE anomaly.scoring_runs ADD COLUMN readings_to timestamptz;
CREATE INDEX scoring_runs_readings_to ON anomaly.scoring_runs (readings_to);
COMMENT ON COLUMN anomaly.scoring_runs.readings_to IS
    'End of the newest reading in the window; empty where there was none';

ALTER TABLE anomaly.machines ADD COLUMN alert_budget double precision CHECK (alert_budget > 0);
COMMENT ON COLUMN anomaly.machines.alert_budget IS
    'Bearable incidents a week, from the next training on; empty: ANOMALY_ALERT_BUDGET';

ALTER TABLE anomaly.incidents
    ADD COLUMN last_at         timestamptz NOT NULL,
    ADD COLUMN readings        integer NOT NULL DEFAULT 0,
    ADD COLUMN origin          anomaly.run_origin NOT NULL,
    ADD COLUMN opened_at       timestamptz NOT NULL,
    ADD COLUMN updated_at      timestamptz NOT NULL,
    ADD COLUMN acknowledged_at timestamptz,
    ADD COLUMN acknowledged_by text,
    ADD CHECK (severity IN ('notice', 'warning', 'critical')),
    ADD CHECK (started_at <= last_at),
    ADD CHECK ((acknowledged_at IS NULL) = (acknowledged_by IS NULL));
COMMENT ON COLUMN anomaly.incidents.started_at IS 'First abnormal reading, or first interval without one';
COMMENT ON COLUMN anomaly.incidents.ended_at IS 'End of the last abnormal interval; empty while it lasts';
COMMENT ON COLUMN anomaly.incidents.severity IS 'notice, warning or critical';
COMMENT ON COLUMN anomaly.incidents.excess_kwh IS
    'Energy beyond the usual while abnormal, negative where it was less; empty where the usual is not known';
COMMENT ON COLUMN anomaly.incidents.last_at IS 'Last abnormal interval so far';
COMMENT ON COLUMN anomaly.incidents.readings IS 'Abnormal readings in it; none for a dropout';
COMMENT ON COLUMN anomaly.incidents.origin IS 'What found it: live, late or backfill';
COMMENT ON COLUMN anomaly.incidents.opened_at IS 'When it was first written';
COMMENT ON COLUMN anomaly.incidents.updated_at IS 'When it was last changed';
COMMENT ON COLUMN anomaly.incidents.acknowledged_at IS 'When somebody took it on';
COMMENT ON COLUMN anomaly.incidents.acknowledged_by IS 'Who took it on';
CREATE INDEX incidents_machine ON anomaly.incidents (machine_id, started_at);
CREATE INDEX incidents_lasting ON anomaly.incidents (machine_id) WHERE ended_at IS NULL;
CREATE INDEX labels_machine ON anomaly.labels USING gist (during);

DROP FUNCTION anomaly.anomaly_results_as_of(timestamptz);
CREATE FUNCTION anomaly.anomaly_results_as_of(moment timestamptz)
RETURNS TABLE (
    machine_id integer, utc_timestamp timestamptz, reading double precision,
    power_kw double precision, power_diff double precision,
    anomaly_score double precision, threshold double precision, anomaly smallint,
    reason text, quality anomaly.reading_quality, origin anomaly.run_origin,
    model_version integer, run_id bigint, scored_at timestamptz, expected_kw double precision
)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT r.machine_id, r.utc_timestamp, r.reading, r.power_kw, r.power_diff, r.anomaly_score,
           r.threshold, r.anomaly, r.reason, r.quality, r.origin, r.model_version, r.run_id,
           r.scored_at, r.expected_kw
      FROM anomaly.anomaly_results r
     WHERE r.scored_at <= moment
     UNION ALL
    SELECT h.machine_id, h.utc_timestamp, h.reading, h.power_kw, h.power_diff, h.anomaly_score,
           h.threshold, h.anomaly, h.reason, h.quality, h.origin, h.model_version, h.run_id,
           h.scored_at, h.expected_kw
      FROM anomaly.anomaly_results_history h
     WHERE h.scored_at <= moment AND moment < h.superseded_at
$$;
COMMENT ON FUNCTION anomaly.anomaly_results_as_of(timestamptz) IS
    'The results table as it stood at a moment: answers "what did operators see then?"';
REVOKE ALL ON FUNCTION anomaly.anomaly_results_as_of(timestamptz) FROM PUBLIC;
