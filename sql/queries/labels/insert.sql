-- Insert a label on a machine and a range of time.
INSERT INTO anomaly.labels (machine_id, during, label, note, labelled_by)
VALUES (:machine_id, tstzrange(:start, :end), :label, :note, :by)
RETURNING label_id, (SELECT name FROM anomaly.machines m WHERE m.machine_id = :machine_id) AS machine
