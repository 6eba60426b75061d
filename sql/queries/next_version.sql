-- The number of the version about to be written: above all that were ever drawn here.
SELECT greatest((SELECT max(version) FROM anomaly.model_versions),
                (SELECT max(version) FROM anomaly.model_drafts), 0) + 1
