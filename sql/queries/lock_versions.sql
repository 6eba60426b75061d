-- One training at a time. A statement of its own: the next one then sees what the
-- training before has committed.
SELECT pg_advisory_xact_lock(hashtext('anomaly.model_versions'))
