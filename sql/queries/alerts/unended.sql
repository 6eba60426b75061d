-- The newest of an event of the pipeline, if its end has not been written yet.
SELECT e.about
  FROM anomaly.alert_events e
 WHERE e.event = :event
   AND NOT EXISTS (SELECT FROM anomaly.alert_events o
                    WHERE o.about = e.about AND o.event = e.event || '_over')
 ORDER BY e.event_id DESC
 LIMIT 1
