-- Models, and how the alerts that they give keep to their budget.

CREATE OR REPLACE VIEW bi.model_versions AS
SELECT v.version AS model_version, v.detector, v.trained_from, v.trained_to, v.readings, v.status,
       v.registered_at, v.registered_by,
       EXISTS (SELECT FROM anomaly.model_in_force f
                WHERE f.version = v.version AND f.superseded_at IS NULL
                  AND f.effective_to IS NULL) AS judges_new_readings
  FROM anomaly.model_versions v;

CREATE OR REPLACE VIEW bi.models_in_force WITH (security_barrier) AS
SELECT f.version AS model_version, nullif(f.effective_from, '-infinity') AS effective_from,
       f.effective_to, f.decision, f.recorded_at, f.recorded_by, f.reason
  FROM anomaly.model_in_force f
 WHERE f.superseded_at IS NULL;

CREATE OR REPLACE VIEW bi.alerts_weekly WITH (security_barrier) AS
SELECT weeks.machine_id, weeks.machine, weeks.site_id, weeks.site, weeks.week_start, weeks.alerts,
       weeks.budget, weeks.alerts - weeks.budget AS over_budget, weeks.real_alerts,
       weeks.false_alarms, weeks.alerts - weeks.real_alerts - weeks.false_alarms AS unlabelled,
       round(weeks.real_alerts * 1e4 / nullif(weeks.real_alerts + weeks.false_alarms, 0))
           ::double precision / 1e4 AS precision,
       to_char(weeks.week_start, 'YYYYMMDD')::integer AS date_key
  FROM (SELECT m.machine_id, m.name AS machine, s.site_id, m.site, w.week_start,
               coalesce(m.alert_budget, in_force.budget) AS budget,
               count(a.incident_id)::integer AS alerts,
               (count(*) FILTER (WHERE a.label = 'real'))::integer AS real_alerts,
               (count(*) FILTER (WHERE a.label = 'false_alarm'))::integer AS false_alarms
          FROM (SELECT DISTINCT d.machine_id,
                       date_trunc('week', d.local_date::timestamp)::date AS week_start
                  FROM anomaly.machine_days d) AS w
          JOIN anomaly.machines m ON m.machine_id = w.machine_id
          JOIN anomaly.sites s ON s.name = m.site
          LEFT JOIN (
               SELECT v.parameters
                 FROM anomaly.model_in_force f
                 JOIN anomaly.model_versions v USING (version)
                WHERE f.superseded_at IS NULL AND f.effective_to IS NULL
               ) AS champion ON true
         CROSS JOIN LATERAL (
               SELECT (champion.parameters ->> 'alert_budget')::double precision AS budget
               ) AS in_force
          LEFT JOIN (
               SELECT f.incident_id, f.machine_id, f.label,
                      date_trunc('week', f.started_at AT TIME ZONE c.clock)::date AS week_start
                 FROM anomaly.alerts f
                 JOIN anomaly.machines c USING (machine_id)
               ) AS a ON a.machine_id = w.machine_id AND a.week_start = w.week_start
         GROUP BY m.machine_id, m.name, s.site_id, m.site, w.week_start, m.alert_budget,
                  in_force.budget) AS weeks;
