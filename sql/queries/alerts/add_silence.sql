-- Silence a machine, a site or everything.
INSERT INTO anomaly.alert_silences (machine_id, site, ends_at, note, silenced_by)
VALUES (:machine_id, :site, :ends_at, :note, :by)
RETURNING silence_id
