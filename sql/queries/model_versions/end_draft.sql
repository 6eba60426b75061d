DELETE FROM anomaly.model_drafts WHERE version = :version
