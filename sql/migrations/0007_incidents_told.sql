-- Incidents that people act on: from when a deviation lasts and when it was told, what is a
-- new normal, everybody who took one on, and labels that are taken back.

ALTER TABLE anomaly.incidents
    ADD COLUMN told_at timestamptz,
    ADD COLUMN settled boolean NOT NULL DEFAULT false;
-- Until now an incident began with its first alarm, and its reason said what was settled.
UPDATE anomaly.incidents
   SET told_at = started_at,
       settled = reason LIKE '%; for days: a new normal, for training to learn',
       reason = replace(reason, '; for days: a new normal, for training to learn', '');
ALTER TABLE anomaly.incidents
    ALTER COLUMN told_at SET NOT NULL,
    ADD CHECK (started_at <= told_at);
COMMENT ON COLUMN anomaly.incidents.started_at IS
    'Start of the interval in which the deviation began, or of the first one without a reading';
COMMENT ON COLUMN anomaly.incidents.told_at IS
    'End of the first abnormal interval: nobody could be told before';
COMMENT ON COLUMN anomaly.incidents.settled IS
    'The machine has been so for days: a new normal, for training to learn';
COMMENT ON COLUMN anomaly.incidents.excess_kwh IS
    'Energy beyond the usual from started_at to the end of the last abnormal interval, negative where it was less; empty where the usual is not known';
COMMENT ON COLUMN anomaly.incidents.acknowledged_at IS 'When the first one took it on';
COMMENT ON COLUMN anomaly.incidents.acknowledged_by IS 'Who took it on first';

CREATE TABLE anomaly.acknowledgements (
    incident_id     bigint NOT NULL REFERENCES anomaly.incidents ON DELETE CASCADE,
    acknowledged_by text NOT NULL,
    acknowledged_at timestamptz NOT NULL,
    PRIMARY KEY (incident_id, acknowledged_by)
);
COMMENT ON TABLE anomaly.acknowledgements IS 'Everybody who took an incident on, each once';
COMMENT ON COLUMN anomaly.acknowledgements.incident_id IS 'The incident';
COMMENT ON COLUMN anomaly.acknowledgements.acknowledged_by IS 'Who';
COMMENT ON COLUMN anomaly.acknowledgements.acknowledged_at IS 'When, the first time';
INSERT INTO anomaly.acknowledgements
SELECT incident_id, acknowledged_by, acknowledged_at
  FROM anomaly.incidents
 WHERE acknowledged_by IS NOT NULL;

ALTER TABLE anomaly.labels
    ADD COLUMN withdrawn_at timestamptz,
    ADD COLUMN withdrawn_by text,
    ADD COLUMN withdrawn_as bigint,
    ADD CHECK (num_nulls(withdrawn_at, withdrawn_by, withdrawn_as) IN (0, 3));
COMMENT ON COLUMN anomaly.labels.withdrawn_at IS 'When it was taken back; empty: it counts';
COMMENT ON COLUMN anomaly.labels.withdrawn_by IS 'Who took it back';
COMMENT ON COLUMN anomaly.labels.withdrawn_as IS
    'Order of taking back, among the label_ids: a training before it has counted the label';
