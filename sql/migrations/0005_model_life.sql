-- The life of a model version: what the judge said of it, which folders are being written
-- or removed, and what kind of decision an entry of the version map is.

ALTER TABLE anomaly.model_versions ADD COLUMN judgement jsonb;
COMMENT ON COLUMN anomaly.model_versions.judgement IS
    'How it compared with the version then in force, on readings neither was trained on; empty: not judged';

CREATE TABLE anomaly.model_drafts (
    version  integer PRIMARY KEY CHECK (version > 0),
    folder   text NOT NULL,
    token    text NOT NULL,
    begun_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    begun_by text NOT NULL
);
COMMENT ON TABLE anomaly.model_drafts IS
    'Folders of model files that no version names: being written (the row is locked), left by a '
    'training that was killed, or of a retired version. Swept after the next training';
COMMENT ON COLUMN anomaly.model_drafts.version IS 'The number that was drawn';
COMMENT ON COLUMN anomaly.model_drafts.folder IS 'Relative to ANOMALY_MODELS_URL';
COMMENT ON COLUMN anomaly.model_drafts.token IS 'Names what is written under a temporary name';
COMMENT ON COLUMN anomaly.model_drafts.begun_at IS 'When';
COMMENT ON COLUMN anomaly.model_drafts.begun_by IS 'Who or what';

ALTER TABLE anomaly.model_in_force ADD COLUMN decision text NOT NULL DEFAULT 'promotion'
    CHECK (decision IN ('promotion', 'rollback', 'range', 'kept'));
COMMENT ON COLUMN anomaly.model_in_force.decision IS
    'promotion; rollback; range: a past range judged by another version; kept: what a later decision left of an entry';
