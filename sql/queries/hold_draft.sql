-- Lock the draft while its files are written: whoever sweeps passes over it.
SELECT version FROM anomaly.model_drafts WHERE version = :version AND token = :token FOR UPDATE
