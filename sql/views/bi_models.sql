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
SELECT m.machine_id, m.name AS machine, s.site_id, m.site, w.week_start, w.alerts,
       bearable.budget, w.alerts - bearable.budget AS over_budget, w.real_alerts, w.false_alarms,
       w.alerts - w.real_alerts - w.false_alarms AS unlabelled,
       round(w.real_alerts * 1e4 / nullif(w.real_alerts + w.false_alarms, 0))
           ::double precision / 1e4 AS precision,
       to_char(w.week_start, 'YYYYMMDD')::integer AS date_key
  FROM (SELECT told.machine_id, told.week_start, count(told.incident_id)::integer AS alerts,
               (count(*) FILTER (WHERE told.label = 'real'))::integer AS real_alerts,
               (count(*) FILTER (WHERE told.label = 'false_alarm'))::integer AS false_alarms
          FROM (SELECT d.machine_id,
                       date_trunc('week', d.local_date::timestamp)::date AS week_start,
                       NULL::bigint AS incident_id, NULL::text AS label
                  FROM anomaly.machine_days d
                 UNION ALL
                SELECT a.machine_id,
                       date_trunc('week', a.started_at AT TIME ZONE c.clock)::date,
                       a.incident_id, a.label
                  FROM anomaly.alerts a
                  JOIN anomaly.machines c USING (machine_id)) AS told
         GROUP BY told.machine_id, told.week_start
        HAVING count(*) > count(told.incident_id)) AS w -- weeks with a verdict
  JOIN anomaly.machines m USING (machine_id)
  JOIN anomaly.sites s ON s.name = m.site
  LEFT JOIN (
       SELECT v.parameters
         FROM anomaly.model_in_force f
         JOIN anomaly.model_versions v USING (version)
        WHERE f.superseded_at IS NULL AND f.effective_to IS NULL
       ) AS champion ON true
 CROSS JOIN LATERAL (
       SELECT coalesce(m.alert_budget, (champion.parameters ->> 'alert_budget')::double precision)
                  AS budget
       ) AS bearable;
