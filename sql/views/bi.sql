-- The views that BI tools query: stable names and columns, documented, read-only.

CREATE SCHEMA IF NOT EXISTS bi;
COMMENT ON SCHEMA bi IS 'Views for BI tools; the role anomaly_bi sees only these';

CREATE OR REPLACE VIEW bi.verdicts AS
SELECT r.utc_timestamp, r.machine_id, m.name AS machine, m.site, r.reading, r.power_kw,
       r.power_diff, r.anomaly_score, r.threshold, r.anomaly, r.reason,
       r.quality::text AS quality, r.origin::text AS origin, r.model_version, r.scored_at,
       r.expected_kw, r.features_version
  FROM anomaly.anomaly_results r
  JOIN anomaly.machines m USING (machine_id);
COMMENT ON VIEW bi.verdicts IS 'Every current verdict, one row per reading of a machine';
COMMENT ON COLUMN bi.verdicts.utc_timestamp IS 'Start of the reading''s interval, UTC';
COMMENT ON COLUMN bi.verdicts.machine_id IS 'Number of the machine';
COMMENT ON COLUMN bi.verdicts.machine IS 'Name of the machine';
COMMENT ON COLUMN bi.verdicts.site IS 'Site of the machine';
COMMENT ON COLUMN bi.verdicts.reading IS 'The reading as metered';
COMMENT ON COLUMN bi.verdicts.power_kw IS 'Mean power in kW since the previous reading';
COMMENT ON COLUMN bi.verdicts.power_diff IS 'Change of the reading per elapsed hour';
COMMENT ON COLUMN bi.verdicts.anomaly_score IS '0 to 1, higher is more abnormal; empty for meter faults';
COMMENT ON COLUMN bi.verdicts.threshold IS 'Scores above it are anomalies';
COMMENT ON COLUMN bi.verdicts.anomaly IS '1: anomaly, 0: normal';
COMMENT ON COLUMN bi.verdicts.reason IS 'The reason in words';
COMMENT ON COLUMN bi.verdicts.quality IS 'Quality of the reading, for example ok, gap or stuck';
COMMENT ON COLUMN bi.verdicts.origin IS 'live, late or backfill';
COMMENT ON COLUMN bi.verdicts.model_version IS 'The model version that judged';
COMMENT ON COLUMN bi.verdicts.scored_at IS 'When the verdict was written, UTC';
COMMENT ON COLUMN bi.verdicts.expected_kw IS 'Usual power of the machine at that time, kW; empty where not known';
COMMENT ON COLUMN bi.verdicts.features_version IS 'Which preprocessing and signals it was judged on';

CREATE OR REPLACE VIEW bi.anomalies AS
SELECT utc_timestamp, machine_id, machine, site, reading, power_kw, power_diff, anomaly_score,
       threshold, reason, quality, origin, model_version, scored_at, expected_kw,
       features_version
  FROM bi.verdicts
 WHERE anomaly = 1;
COMMENT ON VIEW bi.anomalies IS 'The verdicts with anomaly = 1; columns as in bi.verdicts';
COMMENT ON COLUMN bi.anomalies.utc_timestamp IS 'Start of the reading''s interval, UTC';
COMMENT ON COLUMN bi.anomalies.machine_id IS 'Number of the machine';
COMMENT ON COLUMN bi.anomalies.machine IS 'Name of the machine';
COMMENT ON COLUMN bi.anomalies.site IS 'Site of the machine';
COMMENT ON COLUMN bi.anomalies.reading IS 'The reading as metered';
COMMENT ON COLUMN bi.anomalies.power_kw IS 'Mean power in kW since the previous reading';
COMMENT ON COLUMN bi.anomalies.power_diff IS 'Change of the reading per elapsed hour';
COMMENT ON COLUMN bi.anomalies.anomaly_score IS '0 to 1, higher is more abnormal';
COMMENT ON COLUMN bi.anomalies.threshold IS 'Scores above it are anomalies';
COMMENT ON COLUMN bi.anomalies.reason IS 'The reason in words';
COMMENT ON COLUMN bi.anomalies.quality IS 'Quality of the reading, for example ok, gap or stuck';
COMMENT ON COLUMN bi.anomalies.origin IS 'live, late or backfill';
COMMENT ON COLUMN bi.anomalies.model_version IS 'The model version that judged';
COMMENT ON COLUMN bi.anomalies.scored_at IS 'When the verdict was written, UTC';
COMMENT ON COLUMN bi.anomalies.expected_kw IS 'Usual power of the machine at that time, kW; empty where not known';
COMMENT ON COLUMN bi.anomalies.features_version IS 'Which preprocessing and signals it was judged on';

CREATE OR REPLACE VIEW bi.latest AS
SELECT newest.utc_timestamp, m.machine_id, m.name AS machine, m.site, newest.reading,
       newest.power_kw, newest.power_diff, newest.anomaly_score, newest.threshold,
       newest.anomaly, newest.reason, newest.quality::text AS quality,
       newest.origin::text AS origin, newest.model_version, newest.scored_at, newest.expected_kw,
       newest.features_version
  FROM anomaly.machines m
 CROSS JOIN LATERAL (
       SELECT * FROM anomaly.anomaly_results r
        WHERE r.machine_id = m.machine_id
        ORDER BY r.utc_timestamp DESC
        LIMIT 1
       ) AS newest;
COMMENT ON VIEW bi.latest IS 'The newest verdict of each machine; columns as in bi.verdicts';
COMMENT ON COLUMN bi.latest.utc_timestamp IS 'Start of the reading''s interval, UTC';
COMMENT ON COLUMN bi.latest.machine_id IS 'Number of the machine';
COMMENT ON COLUMN bi.latest.machine IS 'Name of the machine';
COMMENT ON COLUMN bi.latest.site IS 'Site of the machine';
COMMENT ON COLUMN bi.latest.reading IS 'The reading as metered';
COMMENT ON COLUMN bi.latest.power_kw IS 'Mean power in kW since the previous reading';
COMMENT ON COLUMN bi.latest.power_diff IS 'Change of the reading per elapsed hour';
COMMENT ON COLUMN bi.latest.anomaly_score IS '0 to 1, higher is more abnormal; empty for meter faults';
COMMENT ON COLUMN bi.latest.threshold IS 'Scores above it are anomalies';
COMMENT ON COLUMN bi.latest.anomaly IS '1: anomaly, 0: normal';
COMMENT ON COLUMN bi.latest.reason IS 'The reason in words';
COMMENT ON COLUMN bi.latest.quality IS 'Quality of the reading, for example ok, gap or stuck';
COMMENT ON COLUMN bi.latest.origin IS 'live, late or backfill';
COMMENT ON COLUMN bi.latest.model_version IS 'The model version that judged';
COMMENT ON COLUMN bi.latest.scored_at IS 'When the verdict was written, UTC';
COMMENT ON COLUMN bi.latest.expected_kw IS 'Usual power of the machine at that time, kW; empty where not known';
COMMENT ON COLUMN bi.latest.features_version IS 'Which preprocessing and signals it was judged on';

-- security_barrier: functions and errors in a user's query can only see the rows that the view
-- shows.
CREATE OR REPLACE VIEW bi.incidents WITH (security_barrier) AS
SELECT i.incident_id, i.machine_id, m.name AS machine, m.site, i.kind, i.state, i.severity,
       i.started_at, i.ended_at,
       extract(epoch FROM coalesce(i.ended_at, i.last_at) - i.started_at) / 3600 AS duration_hours,
       i.reason, i.peak_score, i.excess_kwh, i.readings, i.origin::text AS origin,
       i.acknowledged_by, i.opened_at, i.updated_at, i.told_at, i.settled,
       ARRAY(SELECT a.acknowledged_by
               FROM anomaly.acknowledgements a
              WHERE a.incident_id = i.incident_id
              ORDER BY a.acknowledged_at, a.acknowledged_by) AS acknowledged_by_all
  FROM anomaly.incidents i
  JOIN anomaly.machines m USING (machine_id)
 WHERE i.state NOT IN ('withdrawn', 'merged');
COMMENT ON VIEW bi.incidents IS
    'Episodes of abnormal readings of a machine, and of meter faults, without withdrawn and merged ones';
COMMENT ON COLUMN bi.incidents.incident_id IS 'Stays the same when the episode is computed again';
COMMENT ON COLUMN bi.incidents.machine_id IS 'Number of the machine';
COMMENT ON COLUMN bi.incidents.machine IS 'Name of the machine';
COMMENT ON COLUMN bi.incidents.site IS 'Site of the machine';
COMMENT ON COLUMN bi.incidents.kind IS 'machine: the machine is abnormal; meter: its meter is at fault';
COMMENT ON COLUMN bi.incidents.state IS 'open, acknowledged, closed or silenced';
COMMENT ON COLUMN bi.incidents.severity IS 'notice, warning or critical';
COMMENT ON COLUMN bi.incidents.started_at IS 'Start of the interval in which the deviation began, UTC';
COMMENT ON COLUMN bi.incidents.ended_at IS 'End of the last abnormal interval, UTC; empty while it lasts';
COMMENT ON COLUMN bi.incidents.duration_hours IS 'Hours from its start to its end, or to the last abnormal interval so far';
COMMENT ON COLUMN bi.incidents.reason IS 'The reason in words';
COMMENT ON COLUMN bi.incidents.peak_score IS 'Highest anomaly_score in it; empty for meter faults';
COMMENT ON COLUMN bi.incidents.excess_kwh IS 'Energy beyond the usual from its start to its end, kWh; negative where it was less';
COMMENT ON COLUMN bi.incidents.readings IS 'Abnormal readings in it';
COMMENT ON COLUMN bi.incidents.origin IS 'What found it: live, late or backfill';
COMMENT ON COLUMN bi.incidents.acknowledged_by IS 'Who acknowledged it first';
COMMENT ON COLUMN bi.incidents.opened_at IS 'When it was first written, UTC';
COMMENT ON COLUMN bi.incidents.updated_at IS 'When it was last changed, UTC';
COMMENT ON COLUMN bi.incidents.told_at IS 'End of its first abnormal interval, UTC: nobody could be told before';
COMMENT ON COLUMN bi.incidents.settled IS 'The machine has been abnormal for days: a new normal';
COMMENT ON COLUMN bi.incidents.acknowledged_by_all IS 'Everybody who acknowledged it, in order';
