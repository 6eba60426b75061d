-- The number of the next version: higher than all that were ever drawn here.
SELECT greatest((SELECT max(version) FROM anomaly.model_versions),
                (SELECT max(version) FROM anomaly.model_drafts), 0) + 1
