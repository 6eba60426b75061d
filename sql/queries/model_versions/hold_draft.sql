-- Lock the draft while its files are written; a sweep skips locked drafts.
SELECT version FROM anomaly.model_drafts WHERE version = :version AND token = :token FOR UPDATE
