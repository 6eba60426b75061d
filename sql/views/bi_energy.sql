-- Energy, cost and minutes in incident, per machine and local hour and day.

CREATE OR REPLACE VIEW bi.machine_hours AS
SELECT h.machine_id, m.name AS machine, s.site_id, m.site, h.hour_start,
       h.hour_start AT TIME ZONE m.clock AS local_hour, h.local_date,
       to_char(h.local_date, 'YYYYMMDD')::integer AS date_key,
       extract(hour FROM h.hour_start AT TIME ZONE m.clock)::integer AS hour,
       (SELECT f.name
          FROM anomaly.shifts f
         CROSS JOIN LATERAL (SELECT (h.hour_start AT TIME ZONE m.clock)::time AS now) AS clock
         WHERE f.site = CASE WHEN EXISTS (SELECT FROM anomaly.shifts o WHERE o.site = m.site)
                             THEN m.site ELSE '' END
           AND CASE WHEN f.starts < f.ends THEN clock.now >= f.starts AND clock.now < f.ends
                    ELSE clock.now >= f.starts OR clock.now < f.ends END
         ORDER BY f.name
         LIMIT 1) AS shift,
       round(h.energy_kwh * 1e6) / 1e6 AS energy_kwh,
       round(h.expected_kwh * 1e6) / 1e6 AS expected_kwh,
       round(h.excess_kwh * 1e6) / 1e6 AS excess_kwh,
       round(h.energy_kwh * p.price_per_kwh * 1e4) / 1e4 AS cost, p.currency,
       round(h.mean_power_kw * 1e4) / 1e4 AS mean_power_kw,
       round(h.peak_power_kw * 1e4) / 1e4 AS peak_power_kw,
       round(h.energy_hours * 1e4) / 1e4 AS metered_hours, h.readings, h.anomalies,
       h.meter_faults AS meter_fault_readings,
       round(h.anomalies * 1e4 / nullif(h.readings, 0))::double precision / 1e4 AS anomaly_share,
       coalesce(round(i.machine_minutes), 0)::integer AS incident_minutes,
       coalesce(round(i.meter_minutes), 0)::integer AS meter_fault_minutes,
       round(h.power_hours * 1e4) / 1e4 AS power_hours,
       round(h.expected_hours * 1e4) / 1e4 AS expected_hours
  FROM anomaly.machine_hours h
  JOIN anomaly.machines m USING (machine_id)
  JOIN anomaly.sites s ON s.name = m.site
  LEFT JOIN anomaly.price_periods p
    ON p.site_id = s.site_id AND h.local_date >= p.starts AND h.local_date < p.ends
  LEFT JOIN (
       SELECT lasted.machine_id,
              date_trunc('hour', pieces.starts_at, lasted.clock) AS hour_start,
              sum(inside.minutes) FILTER (WHERE lasted.kind = 'machine') AS machine_minutes,
              sum(inside.minutes) FILTER (WHERE lasted.kind = 'meter') AS meter_minutes
         FROM anomaly.incident_spans lasted
        CROSS JOIN LATERAL generate_series( -- some clocks change by half an hour
                  date_trunc('hour', lasted.started_at, lasted.clock), lasted.ends_at,
                  interval '30 minutes') AS pieces (starts_at)
        CROSS JOIN LATERAL (
              SELECT greatest(extract(epoch FROM
                         least(lasted.ends_at, pieces.starts_at + interval '30 minutes')
                         - greatest(lasted.started_at, pieces.starts_at))::double precision
                     / 60, 0) AS minutes
              ) AS inside
        GROUP BY lasted.machine_id, date_trunc('hour', pieces.starts_at, lasted.clock)
       ) AS i ON i.machine_id = h.machine_id AND i.hour_start = h.hour_start;

CREATE OR REPLACE VIEW bi.machine_days AS
SELECT d.machine_id, m.name AS machine, s.site_id, m.site, d.local_date,
       to_char(d.local_date, 'YYYYMMDD')::integer AS date_key,
       date_trunc('week', d.local_date::timestamp)::date AS week_start,
       extract(epoch FROM anomaly.day_start(d.local_date + 1, m.clock)
                          - anomaly.day_start(d.local_date, m.clock))::double precision
           / 3600 AS day_hours,
       (SELECT c.name FROM anomaly.holidays c
         WHERE c.calendar = coalesce(m.holidays, '') AND c.day = d.local_date) AS holiday,
       round(d.energy_kwh * 1e6) / 1e6 AS energy_kwh,
       round(d.expected_kwh * 1e6) / 1e6 AS expected_kwh,
       round(d.excess_kwh * 1e6) / 1e6 AS excess_kwh,
       round(d.energy_kwh * p.price_per_kwh * 1e4) / 1e4 AS cost, p.currency,
       round(d.mean_power_kw * 1e4) / 1e4 AS mean_power_kw,
       round(d.peak_power_kw * 1e4) / 1e4 AS peak_power_kw,
       round(d.energy_hours * 1e4) / 1e4 AS metered_hours, d.readings, d.anomalies,
       d.meter_faults AS meter_fault_readings,
       round(d.anomalies * 1e4 / nullif(d.readings, 0))::double precision / 1e4 AS anomaly_share,
       coalesce(round(i.machine_minutes), 0)::integer AS incident_minutes,
       coalesce(round(i.meter_minutes), 0)::integer AS meter_fault_minutes,
       round(d.power_hours * 1e4) / 1e4 AS power_hours,
       round(d.expected_hours * 1e4) / 1e4 AS expected_hours
  FROM anomaly.machine_days d
  JOIN anomaly.machines m USING (machine_id)
  JOIN anomaly.sites s ON s.name = m.site
  LEFT JOIN anomaly.price_periods p
    ON p.site_id = s.site_id AND d.local_date >= p.starts AND d.local_date < p.ends
  LEFT JOIN (
       SELECT lasted.machine_id, days.local_date,
              sum(inside.minutes) FILTER (WHERE lasted.kind = 'machine') AS machine_minutes,
              sum(inside.minutes) FILTER (WHERE lasted.kind = 'meter') AS meter_minutes
         FROM anomaly.incident_spans lasted
        CROSS JOIN LATERAL (
              SELECT generate_series((lasted.started_at AT TIME ZONE lasted.clock)::date,
                                     (lasted.ends_at AT TIME ZONE lasted.clock)::date,
                                     interval '1 day')::date AS local_date
              ) AS days
        CROSS JOIN LATERAL (
              SELECT extract(epoch FROM
                         least(lasted.ends_at,
                               anomaly.day_start(days.local_date + 1, lasted.clock))
                         - greatest(lasted.started_at,
                                    anomaly.day_start(days.local_date, lasted.clock)))
                     ::double precision / 60 AS minutes
              ) AS inside
        GROUP BY lasted.machine_id, days.local_date
       ) AS i ON i.machine_id = d.machine_id AND i.local_date = d.local_date;
