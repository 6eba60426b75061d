-- Silences that have not ended at a moment, the newest first.
SELECT s.silence_id, s.machine_id, m.name AS machine, s.site, s.starts_at, s.ends_at, s.note,
       s.silenced_by
  FROM anomaly.alert_silences s
  LEFT JOIN anomaly.machines m USING (machine_id)
 WHERE s.ends_at > :now
 ORDER BY s.silence_id DESC
