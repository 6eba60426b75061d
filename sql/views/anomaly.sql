-- What views of bi, `anomaly status`, training and metrics share, so that all count the same.

CREATE OR REPLACE VIEW anomaly.alerts AS
SELECT i.incident_id, i.machine_id, i.started_at, said.label
  FROM anomaly.incidents i
  LEFT JOIN ( -- from the labels on: they are few
       SELECT DISTINCT ON (o.incident_id) o.incident_id, l.label
         FROM anomaly.labels l
         JOIN anomaly.incidents o
           ON o.machine_id = l.machine_id
          AND l.during && tstzrange(o.started_at, coalesce(o.ended_at, 'infinity'))
        WHERE l.label IN ('real', 'false_alarm') AND l.withdrawn_as IS NULL
        ORDER BY o.incident_id, l.label_id DESC
       ) AS said USING (incident_id)
 WHERE i.kind = 'machine' AND i.state NOT IN ('withdrawn', 'merged')
   AND NOT (i.state = 'silenced' AND EXISTS (
       SELECT FROM anomaly.labels l
        WHERE l.machine_id = i.machine_id AND l.label = 'maintenance'
          AND l.withdrawn_as IS NULL
          AND l.during @> i.told_at - interval '1 microsecond'));
COMMENT ON VIEW anomaly.alerts IS
    'Incidents of machines (not of meters); one that was told during maintenance and ended in it was silenced all the time, so it is no alert';
COMMENT ON COLUMN anomaly.alerts.incident_id IS 'The incident';
COMMENT ON COLUMN anomaly.alerts.machine_id IS 'The machine';
COMMENT ON COLUMN anomaly.alerts.started_at IS 'Start of the interval in which the deviation began';
COMMENT ON COLUMN anomaly.alerts.label IS
    'real or false_alarm: the newest label of these that overlaps it; empty: nobody said';

CREATE OR REPLACE VIEW anomaly.incident_spans AS
SELECT i.incident_id, i.machine_id, i.kind, i.started_at,
       coalesce(i.ended_at, i.last_at + g.meter_interval) AS ends_at, m.clock
  FROM anomaly.incidents i
  JOIN anomaly.machines m USING (machine_id)
 CROSS JOIN anomaly.metering g
 WHERE i.state NOT IN ('withdrawn', 'merged');
COMMENT ON VIEW anomaly.incident_spans IS
    'When each incident lasts; those that were withdrawn or merged into another are left out';
COMMENT ON COLUMN anomaly.incident_spans.incident_id IS 'The incident';
COMMENT ON COLUMN anomaly.incident_spans.machine_id IS 'The machine';
COMMENT ON COLUMN anomaly.incident_spans.kind IS 'machine or meter';
COMMENT ON COLUMN anomaly.incident_spans.started_at IS 'Start of the interval in which the deviation began';
COMMENT ON COLUMN anomaly.incident_spans.ends_at IS
    'Its end; of one that lasts, the end of its last abnormal interval';
COMMENT ON COLUMN anomaly.incident_spans.clock IS 'Time zone of the machine';

CREATE OR REPLACE VIEW anomaly.incident_facts AS
SELECT i.incident_id, i.kind, i.severity, m.machine_id, m.name AS machine,
       coalesce(m.site, '') AS site, m.clock,
       i.state, i.started_at, i.last_at, i.ended_at, i.settled, i.reason, i.excess_kwh,
       i.acknowledged_by, said.label, said.labelled_by, p.price_per_kwh, p.currency
  FROM anomaly.incidents i
  JOIN anomaly.machines m USING (machine_id)
  LEFT JOIN LATERAL (
       SELECT l.label, l.labelled_by
         FROM anomaly.labels l
        WHERE l.machine_id = i.machine_id AND l.withdrawn_as IS NULL AND l.label <> 'maintenance'
          AND l.during && tstzrange(i.started_at, coalesce(i.ended_at, i.last_at), '[]')
        ORDER BY l.label_id DESC
        LIMIT 1) AS said ON true
  LEFT JOIN anomaly.sites s ON s.name = m.site
  LEFT JOIN anomaly.price_periods p
    ON p.site_id = s.site_id
   AND (i.started_at AT TIME ZONE m.clock)::date >= p.starts
   AND (i.started_at AT TIME ZONE m.clock)::date < p.ends;
COMMENT ON VIEW anomaly.incident_facts IS
    'Incidents with what a message says of them, and the price at their site';
COMMENT ON COLUMN anomaly.incident_facts.incident_id IS 'Its number';
COMMENT ON COLUMN anomaly.incident_facts.kind IS 'machine or meter';
COMMENT ON COLUMN anomaly.incident_facts.severity IS 'How severe it is';
COMMENT ON COLUMN anomaly.incident_facts.machine_id IS 'The machine';
COMMENT ON COLUMN anomaly.incident_facts.machine IS 'Its name';
COMMENT ON COLUMN anomaly.incident_facts.site IS 'Its site; empty: none';
COMMENT ON COLUMN anomaly.incident_facts.clock IS 'Time zone of the machine';
COMMENT ON COLUMN anomaly.incident_facts.state IS 'Its state';
COMMENT ON COLUMN anomaly.incident_facts.started_at IS 'Its start';
COMMENT ON COLUMN anomaly.incident_facts.last_at IS 'Start of its last abnormal interval';
COMMENT ON COLUMN anomaly.incident_facts.ended_at IS 'Its end; empty: it lasts';
COMMENT ON COLUMN anomaly.incident_facts.settled IS 'Whether it counts as the new normal';
COMMENT ON COLUMN anomaly.incident_facts.reason IS 'What is unusual';
COMMENT ON COLUMN anomaly.incident_facts.excess_kwh IS 'Energy beyond the usual';
COMMENT ON COLUMN anomaly.incident_facts.acknowledged_by IS 'Who has taken it on';
COMMENT ON COLUMN anomaly.incident_facts.label IS 'What people said it was, last; maintenance aside';
COMMENT ON COLUMN anomaly.incident_facts.labelled_by IS 'Who said so';
COMMENT ON COLUMN anomaly.incident_facts.price_per_kwh IS 'Price of a kWh at its site then';
COMMENT ON COLUMN anomaly.incident_facts.currency IS 'Of the price';

CREATE OR REPLACE VIEW anomaly.alert_facts AS
SELECT e.event_id, e.about, e.event, e.kind, e.severity, e.says, e.created_at, e.held_until,
       e.decided_at, e.decision, e.incident_id, i.machine_id, i.machine,
       coalesce(i.site, '') AS site, i.clock, i.state, i.started_at, i.last_at, i.ended_at,
       i.settled, i.reason, coalesce(i.severity, e.severity) AS severity_now, i.excess_kwh,
       i.acknowledged_by, i.label, i.labelled_by, i.price_per_kwh, i.currency
  FROM anomaly.alert_events e
  LEFT JOIN anomaly.incident_facts i USING (incident_id);
COMMENT ON VIEW anomaly.alert_facts IS
    'What people are to be told, with the incident as it is now, and the price at its site';
COMMENT ON COLUMN anomaly.alert_facts.event_id IS 'Its number';
COMMENT ON COLUMN anomaly.alert_facts.about IS 'What it is about';
COMMENT ON COLUMN anomaly.alert_facts.event IS 'What happened';
COMMENT ON COLUMN anomaly.alert_facts.kind IS 'machine, meter, pipeline or model';
COMMENT ON COLUMN anomaly.alert_facts.severity IS 'How severe it was when it happened';
COMMENT ON COLUMN anomaly.alert_facts.says IS 'What is told, where no incident says it';
COMMENT ON COLUMN anomaly.alert_facts.created_at IS 'When it happened';
COMMENT ON COLUMN anomaly.alert_facts.held_until IS 'It waits until then';
COMMENT ON COLUMN anomaly.alert_facts.decided_at IS 'When it was decided; empty: not yet';
COMMENT ON COLUMN anomaly.alert_facts.decision IS 'What was decided, and why';
COMMENT ON COLUMN anomaly.alert_facts.incident_id IS 'The incident; empty: it is about none';
COMMENT ON COLUMN anomaly.alert_facts.machine_id IS 'The machine';
COMMENT ON COLUMN anomaly.alert_facts.machine IS 'Its name';
COMMENT ON COLUMN anomaly.alert_facts.site IS 'Its site; empty: none';
COMMENT ON COLUMN anomaly.alert_facts.clock IS 'Time zone of the machine';
COMMENT ON COLUMN anomaly.alert_facts.state IS 'State of the incident';
COMMENT ON COLUMN anomaly.alert_facts.started_at IS 'Start of the incident';
COMMENT ON COLUMN anomaly.alert_facts.last_at IS 'Start of its last abnormal interval';
COMMENT ON COLUMN anomaly.alert_facts.ended_at IS 'Its end; empty: it lasts';
COMMENT ON COLUMN anomaly.alert_facts.settled IS 'Whether it counts as the new normal';
COMMENT ON COLUMN anomaly.alert_facts.reason IS 'What is unusual';
COMMENT ON COLUMN anomaly.alert_facts.severity_now IS 'How severe it is';
COMMENT ON COLUMN anomaly.alert_facts.excess_kwh IS 'Energy beyond the usual';
COMMENT ON COLUMN anomaly.alert_facts.acknowledged_by IS 'Who has taken it on';
COMMENT ON COLUMN anomaly.alert_facts.label IS 'What people said it was, last; maintenance aside';
COMMENT ON COLUMN anomaly.alert_facts.labelled_by IS 'Who said so';
COMMENT ON COLUMN anomaly.alert_facts.price_per_kwh IS 'Price of a kWh at its site then';
COMMENT ON COLUMN anomaly.alert_facts.currency IS 'Of the price';
