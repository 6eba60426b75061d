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
