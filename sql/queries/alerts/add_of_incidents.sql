-- Write that incidents opened, became more severe, or are over, where nothing written says so yet.
-- An incident of which nothing was written, or that it is over, opens now: a backfill opened it.
-- What was found when it was over opens too, unless something was written or a backfill found it.
INSERT INTO anomaly.alert_events (key, about, event, kind, severity, incident_id, created_at)
SELECT concat_ws(':', 'incident', new.incident_id, old.times + opens::int,
                 CASE WHEN new.event = 'ended' THEN 'ended' ELSE new.severity END),
       'incident:' || new.incident_id,
       CASE WHEN new.event = 'ended' THEN 'ended' WHEN opens THEN 'opened' ELSE 'worsened' END,
       new.kind, new.severity, new.incident_id, new.created_at
  FROM jsonb_to_recordset(CAST(:events AS jsonb)) AS new (
       event text, kind text, severity text, incident_id bigint, created_at timestamptz)
 CROSS JOIN LATERAL (
       SELECT count(*) FILTER (WHERE e.event = 'opened') AS times,
              max(e.event_id) FILTER (WHERE e.event = 'opened') AS opened,
              max(e.event_id) FILTER (WHERE e.event = 'ended') AS ended
         FROM anomaly.alert_events e
        WHERE e.incident_id = new.incident_id) AS old
 CROSS JOIN LATERAL (
       SELECT new.event IN ('opened', 'found over')
           OR (new.event = 'lasts' AND (old.times = 0 OR old.ended > old.opened)) AS opens) AS how
 WHERE CASE new.event
       WHEN 'opened' THEN true
       WHEN 'ended' THEN old.times > 0
       WHEN 'found over' THEN old.times = 0 AND EXISTS (
            SELECT FROM anomaly.incidents i
             WHERE i.incident_id = new.incident_id AND i.origin <> 'backfill')
       ELSE how.opens OR NOT EXISTS (
            SELECT FROM anomaly.alert_events e
             WHERE e.incident_id = new.incident_id AND e.event_id >= old.opened
               AND array_position(ARRAY['notice', 'warning', 'critical'], e.severity)
                   >= array_position(ARRAY['notice', 'warning', 'critical'], new.severity))
       END
    ON CONFLICT (key) DO NOTHING
RETURNING event_id
