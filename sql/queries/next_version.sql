-- The number of the version about to be registered.
SELECT coalesce(max(version), 0) + 1 FROM anomaly.model_versions
