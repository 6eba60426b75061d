-- Dimensions: one row per machine, site and local day, with whole numbers as keys.

CREATE OR REPLACE VIEW bi.machines AS
SELECT m.machine_id, m.name AS machine, s.site_id, m.site, m.time_zone, m.active_from,
       m.active_to, m.max_power_kw, m.alert_budget, m.holidays, m.source_key
  FROM anomaly.machines m
  JOIN anomaly.sites s ON s.name = m.site;

CREATE OR REPLACE VIEW bi.sites AS
SELECT s.site_id, s.name AS site,
       (SELECT count(*) FROM anomaly.machines m WHERE m.site = s.name)::integer AS machines,
       p.price_per_kwh, p.currency
  FROM anomaly.sites s
  LEFT JOIN anomaly.price_periods p
    ON p.site_id = s.site_id AND current_date >= p.starts AND current_date < p.ends;

-- From the year before the first verdict, incident or run to the end of next year: the week of the
-- first day may begin in the year before.
CREATE OR REPLACE VIEW bi.calendar AS
SELECT to_char(d.day, 'YYYYMMDD')::integer AS date_key, d.day AS date,
       extract(year FROM d.day)::integer AS year, extract(quarter FROM d.day)::integer AS quarter,
       extract(month FROM d.day)::integer AS month, to_char(d.day, 'FMMonth') AS month_name,
       extract(isoyear FROM d.day)::integer AS iso_year,
       extract(week FROM d.day)::integer AS iso_week,
       date_trunc('week', d.day::timestamp)::date AS week_start,
       extract(isodow FROM d.day)::integer AS weekday, to_char(d.day, 'FMDay') AS weekday_name,
       extract(isodow FROM d.day) >= 6 AS is_weekend,
       (SELECT h.name FROM anomaly.holidays h WHERE h.calendar = '' AND h.day = d.day) AS holiday
  FROM (SELECT generate_series(
                   make_date(extract(year FROM coalesce(least(
                       (SELECT min(local_date) FROM anomaly.machine_days),
                       (SELECT min(started_at)::date FROM anomaly.incidents),
                       (SELECT min(window_start)::date FROM anomaly.scoring_runs
                         WHERE readings > 0)), current_date))::int - 1, 1, 1),
                   make_date(extract(year FROM current_date)::int + 1, 12, 31),
                   interval '1 day')::date AS day) AS d;
