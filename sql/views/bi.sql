-- The views that BI tools query: stable names and columns, read-only. New columns go to the end.
--
-- What they and their columns mean stands in comments.sql. Powers and energies are rounded to
-- 0.1 W and 1 mWh, so that no tool shows sixteen digits.

CREATE SCHEMA IF NOT EXISTS bi;
COMMENT ON SCHEMA bi IS 'Views for BI tools; the role anomaly_bi sees only these';

CREATE OR REPLACE VIEW bi.verdicts AS
SELECT r.utc_timestamp, r.machine_id, m.name AS machine, m.site, r.reading,
       round(r.power_kw * 1e4) / 1e4 AS power_kw, round(r.power_diff * 1e4) / 1e4 AS power_diff,
       round(r.anomaly_score * 1e9) / 1e9 AS anomaly_score,
       round(r.threshold * 1e9) / 1e9 AS threshold, r.anomaly, r.reason,
       r.quality::text AS quality, r.origin::text AS origin, r.model_version, r.scored_at,
       round(r.expected_kw * 1e4) / 1e4 AS expected_kw, r.features_version,
       round(r.energy_kwh * 1e6) / 1e6 AS energy_kwh,
       round(r.energy_hours * 1e6) / 1e6 AS energy_hours,
       r.utc_timestamp AT TIME ZONE m.clock AS local_time,
       (r.utc_timestamp AT TIME ZONE m.clock)::date AS local_date, s.site_id,
       to_char(r.utc_timestamp AT TIME ZONE m.clock, 'YYYYMMDD')::integer AS date_key
  FROM anomaly.anomaly_results r
  JOIN anomaly.machines m USING (machine_id)
  JOIN anomaly.sites s ON s.name = m.site;

CREATE OR REPLACE VIEW bi.anomalies AS
SELECT utc_timestamp, machine_id, machine, site, reading, power_kw, power_diff, anomaly_score,
       threshold, reason, quality, origin, model_version, scored_at, expected_kw,
       features_version, energy_kwh, energy_hours, local_time, local_date, site_id, date_key
  FROM bi.verdicts
 WHERE anomaly = 1;

-- security_barrier: functions and errors in a user's query can only see the rows that the view
-- shows.
CREATE OR REPLACE VIEW bi.incidents WITH (security_barrier) AS
SELECT i.incident_id, i.machine_id, m.name AS machine, m.site, i.kind, i.state, i.severity,
       i.started_at, i.ended_at,
       round(extract(epoch FROM coalesce(i.ended_at, i.last_at + g.meter_interval)
                                - i.started_at) / 3600, 2)
           AS duration_hours,
       i.reason, round(i.peak_score * 1e9) / 1e9 AS peak_score,
       coalesce(round(i.excess_kwh * 1e3) / 1e3, 0) AS excess_kwh, i.readings,
       i.origin::text AS origin,
       i.acknowledged_by, i.opened_at, i.updated_at, i.told_at, i.settled,
       ARRAY(SELECT a.acknowledged_by
               FROM anomaly.acknowledgements a
              WHERE a.incident_id = i.incident_id
              ORDER BY a.acknowledged_at, a.acknowledged_by) AS acknowledged_by_all,
       s.site_id, i.started_at AT TIME ZONE m.clock AS local_start,
       i.ended_at AT TIME ZONE m.clock AS local_end,
       (i.started_at AT TIME ZONE m.clock)::date AS local_date,
       date_trunc('week', i.started_at AT TIME ZONE m.clock)::date AS week_start,
       i.excess_kwh IS NOT NULL AS excess_known,
       round((coalesce(i.excess_kwh, 0) * p.price_per_kwh)::numeric, 2)::double precision
           AS excess_cost,
       p.currency,
       (SELECT l.label
          FROM anomaly.labels l
         WHERE l.machine_id = i.machine_id AND l.withdrawn_as IS NULL
           AND l.during && tstzrange(i.started_at, coalesce(i.ended_at, 'infinity'))
         ORDER BY l.label_id DESC
         LIMIT 1) AS label,
       to_char(i.started_at AT TIME ZONE m.clock, 'YYYYMMDD')::integer AS date_key
  FROM anomaly.incidents i
  JOIN anomaly.machines m USING (machine_id)
  JOIN anomaly.sites s ON s.name = m.site
 CROSS JOIN anomaly.metering g
  LEFT JOIN anomaly.price_periods p
    ON p.site_id = s.site_id
   AND (i.started_at AT TIME ZONE m.clock)::date >= p.starts
   AND (i.started_at AT TIME ZONE m.clock)::date < p.ends
 WHERE i.state NOT IN ('withdrawn', 'merged');

CREATE OR REPLACE VIEW bi.meter_faults WITH (security_barrier) AS
SELECT incident_id, machine_id, machine, site_id, site, state, severity, started_at, ended_at,
       local_start, local_end, local_date, week_start, duration_hours, reason, readings, label,
       acknowledged_by, date_key
  FROM bi.incidents
 WHERE kind = 'meter';

-- Machines now -----------------------------------------------------------------

-- Silent is a matter of time, so that it is said even when nothing is scored any more. A fault of the
-- meter that is settled while it lasts is a meter that stands still for good; a machine's incident
-- that is settled is a new normal.
CREATE OR REPLACE VIEW bi.machine_health WITH (security_barrier) AS
SELECT m.machine_id, m.name AS machine, s.site_id, m.site,
       CASE WHEN m.active_to <= now() THEN 'retired'
            WHEN newest.utc_timestamp IS NULL THEN 'no verdict yet'
            WHEN newest.utc_timestamp + g.meter_interval + g.stale_after < now() THEN 'silent'
            WHEN worst.kind = 'meter' THEN 'meter fault'
            WHEN worst.kind = 'machine' THEN 'abnormal'
            WHEN coalesce(steady.quality, newest.quality) = 'learning' THEN 'learning'
            ELSE 'normal'
       END AS state,
       since.at AS since, since.at AT TIME ZONE m.clock AS local_since,
       newest.utc_timestamp AS last_reading_at,
       newest.utc_timestamp AT TIME ZONE m.clock AS local_last_reading,
       round(newest.power_kw * 1e4) / 1e4 AS power_kw,
       round(newest.expected_kw * 1e4) / 1e4 AS expected_kw,
       round((newest.power_kw - newest.expected_kw) * 1e4) / 1e4 AS excess_kw,
       coalesce(lasting.incidents, 0)::integer AS open_incidents,
       coalesce(lasting.meter_faults, 0)::integer AS open_meter_faults,
       worst.incident_id, worst.severity, worst.reason, worst.acknowledged_by
  FROM anomaly.machines m
  JOIN anomaly.sites s ON s.name = m.site
 CROSS JOIN anomaly.metering g
  LEFT JOIN LATERAL (
       SELECT r.utc_timestamp, r.power_kw, r.expected_kw, r.quality
         FROM anomaly.anomaly_results r
        WHERE r.machine_id = m.machine_id
        ORDER BY r.utc_timestamp DESC
        LIMIT 1
       ) AS newest ON true
  LEFT JOIN LATERAL (
       SELECT r.quality -- one that says nothing of gaps: those hide that a machine is learnt
         FROM anomaly.anomaly_results r
        WHERE r.machine_id = m.machine_id AND newest.quality IN ('gap', 'irregular', 'duplicate')
          AND r.quality NOT IN ('gap', 'irregular', 'duplicate')
          AND r.utc_timestamp > newest.utc_timestamp - interval '1 day'
        ORDER BY r.utc_timestamp DESC
        LIMIT 1
       ) AS steady ON true
  LEFT JOIN (
       SELECT i.machine_id, count(*) FILTER (WHERE i.kind = 'machine') AS incidents,
              count(*) FILTER (WHERE i.kind = 'meter') AS meter_faults
         FROM anomaly.incidents i
        WHERE i.ended_at IS NULL
          AND (i.state IN ('open', 'acknowledged', 'silenced')
               OR i.kind = 'meter' AND i.settled)
        GROUP BY i.machine_id
       ) AS lasting ON lasting.machine_id = m.machine_id
  LEFT JOIN (
       SELECT DISTINCT ON (i.machine_id) i.*
         FROM anomaly.incidents i
        WHERE i.ended_at IS NULL
          AND (i.state IN ('open', 'acknowledged', 'silenced')
               OR i.kind = 'meter' AND i.settled)
        ORDER BY i.machine_id, i.kind = 'machine',
                 array_position(ARRAY['critical', 'warning', 'notice'], i.severity), i.started_at
       ) AS worst ON worst.machine_id = m.machine_id
 CROSS JOIN LATERAL (
       SELECT CASE WHEN newest.utc_timestamp + g.meter_interval + g.stale_after < now()
                   THEN newest.utc_timestamp + g.meter_interval
                   ELSE worst.started_at END AS at
       ) AS since;

CREATE OR REPLACE VIEW bi.latest WITH (security_barrier) AS
SELECT newest.utc_timestamp, m.machine_id, m.name AS machine, m.site, newest.reading,
       round(newest.power_kw * 1e4) / 1e4 AS power_kw,
       round(newest.power_diff * 1e4) / 1e4 AS power_diff,
       round(newest.anomaly_score * 1e9) / 1e9 AS anomaly_score,
       round(newest.threshold * 1e9) / 1e9 AS threshold,
       newest.anomaly, newest.reason, newest.quality::text AS quality,
       newest.origin::text AS origin, newest.model_version, newest.scored_at,
       round(newest.expected_kw * 1e4) / 1e4 AS expected_kw,
       newest.features_version, round(newest.energy_kwh * 1e6) / 1e6 AS energy_kwh,
       round(newest.energy_hours * 1e6) / 1e6 AS energy_hours, newest.utc_timestamp AT TIME ZONE m.clock AS local_time,
       (newest.utc_timestamp AT TIME ZONE m.clock)::date AS local_date, h.site_id,
       h.state, h.open_incidents, h.open_meter_faults,
       to_char(newest.utc_timestamp AT TIME ZONE m.clock, 'YYYYMMDD')::integer AS date_key
  FROM anomaly.machines m
  JOIN bi.machine_health h ON h.machine_id = m.machine_id
 CROSS JOIN LATERAL (
       SELECT * FROM anomaly.anomaly_results r
        WHERE r.machine_id = m.machine_id
        ORDER BY r.utc_timestamp DESC
        LIMIT 1
       ) AS newest;

CREATE OR REPLACE VIEW bi.labels WITH (security_barrier) AS
SELECT l.label_id, l.machine_id, m.name AS machine, s.site_id, m.site,
       lower(l.during) AS starts_at, upper(l.during) AS ends_at, l.label, l.note, l.labelled_by,
       l.labelled_at
  FROM anomaly.labels l
  JOIN anomaly.machines m USING (machine_id)
  JOIN anomaly.sites s ON s.name = m.site
 WHERE l.withdrawn_as IS NULL;
