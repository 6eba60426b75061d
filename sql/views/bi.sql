-- The views that BI tools query: stable names and columns, documented, read-only.

CREATE SCHEMA IF NOT EXISTS bi;
COMMENT ON SCHEMA bi IS 'Views for BI tools; the role anomaly_bi sees these and nothing else';

CREATE OR REPLACE VIEW bi.verdicts AS
SELECT r.utc_timestamp, r.machine_id, m.name AS machine, m.site, r.reading, r.power_kw,
       r.power_diff, r.anomaly_score, r.threshold, r.anomaly, r.reason,
       r.quality::text AS quality, r.origin::text AS origin, r.model_version, r.scored_at
  FROM anomaly.anomaly_results r
  JOIN anomaly.machines m USING (machine_id);
COMMENT ON VIEW bi.verdicts IS 'Every current verdict: one row a machine and reading';
COMMENT ON COLUMN bi.verdicts.utc_timestamp IS 'Start of the reading''s interval, UTC';
COMMENT ON COLUMN bi.verdicts.machine_id IS 'Number of the machine';
COMMENT ON COLUMN bi.verdicts.machine IS 'Name of the machine';
COMMENT ON COLUMN bi.verdicts.site IS 'Where the machine stands';
COMMENT ON COLUMN bi.verdicts.reading IS 'The reading as metered';
COMMENT ON COLUMN bi.verdicts.power_kw IS 'Mean power in kW since the previous reading';
COMMENT ON COLUMN bi.verdicts.power_diff IS 'Change of the reading per elapsed hour';
COMMENT ON COLUMN bi.verdicts.anomaly_score IS '0 to 1, higher is more abnormal; empty for meter faults';
COMMENT ON COLUMN bi.verdicts.threshold IS 'Scores above it are anomalies';
COMMENT ON COLUMN bi.verdicts.anomaly IS '1: anomaly, 0: normal';
COMMENT ON COLUMN bi.verdicts.reason IS 'Why, in words';
COMMENT ON COLUMN bi.verdicts.quality IS 'What is to be known about the reading';
COMMENT ON COLUMN bi.verdicts.origin IS 'live, late or backfill';
COMMENT ON COLUMN bi.verdicts.model_version IS 'The model version that judged';
COMMENT ON COLUMN bi.verdicts.scored_at IS 'When the verdict was written, UTC';

CREATE OR REPLACE VIEW bi.anomalies AS
SELECT utc_timestamp, machine_id, machine, site, reading, power_kw, power_diff, anomaly_score,
       threshold, reason, quality, origin, model_version, scored_at
  FROM bi.verdicts
 WHERE anomaly = 1;
COMMENT ON VIEW bi.anomalies IS 'The verdicts with anomaly = 1; columns as in bi.verdicts';
COMMENT ON COLUMN bi.anomalies.utc_timestamp IS 'Start of the reading''s interval, UTC';
COMMENT ON COLUMN bi.anomalies.machine_id IS 'Number of the machine';
COMMENT ON COLUMN bi.anomalies.machine IS 'Name of the machine';
COMMENT ON COLUMN bi.anomalies.site IS 'Where the machine stands';
COMMENT ON COLUMN bi.anomalies.reading IS 'The reading as metered';
COMMENT ON COLUMN bi.anomalies.power_kw IS 'Mean power in kW since the previous reading';
COMMENT ON COLUMN bi.anomalies.power_diff IS 'Change of the reading per elapsed hour';
COMMENT ON COLUMN bi.anomalies.anomaly_score IS '0 to 1, higher is more abnormal';
COMMENT ON COLUMN bi.anomalies.threshold IS 'Scores above it are anomalies';
COMMENT ON COLUMN bi.anomalies.reason IS 'Why, in words';
COMMENT ON COLUMN bi.anomalies.quality IS 'What is to be known about the reading';
COMMENT ON COLUMN bi.anomalies.origin IS 'live, late or backfill';
COMMENT ON COLUMN bi.anomalies.model_version IS 'The model version that judged';
COMMENT ON COLUMN bi.anomalies.scored_at IS 'When the verdict was written, UTC';

CREATE OR REPLACE VIEW bi.latest AS
SELECT newest.utc_timestamp, m.machine_id, m.name AS machine, m.site, newest.reading,
       newest.power_kw, newest.power_diff, newest.anomaly_score, newest.threshold,
       newest.anomaly, newest.reason, newest.quality::text AS quality,
       newest.origin::text AS origin, newest.model_version, newest.scored_at
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
COMMENT ON COLUMN bi.latest.site IS 'Where the machine stands';
COMMENT ON COLUMN bi.latest.reading IS 'The reading as metered';
COMMENT ON COLUMN bi.latest.power_kw IS 'Mean power in kW since the previous reading';
COMMENT ON COLUMN bi.latest.power_diff IS 'Change of the reading per elapsed hour';
COMMENT ON COLUMN bi.latest.anomaly_score IS '0 to 1, higher is more abnormal; empty for meter faults';
COMMENT ON COLUMN bi.latest.threshold IS 'Scores above it are anomalies';
COMMENT ON COLUMN bi.latest.anomaly IS '1: anomaly, 0: normal';
COMMENT ON COLUMN bi.latest.reason IS 'Why, in words';
COMMENT ON COLUMN bi.latest.quality IS 'What is to be known about the reading';
COMMENT ON COLUMN bi.latest.origin IS 'live, late or backfill';
COMMENT ON COLUMN bi.latest.model_version IS 'The model version that judged';
COMMENT ON COLUMN bi.latest.scored_at IS 'When the verdict was written, UTC';
