-- Mark the decision about a version as carried out: its readings are scored again.
UPDATE anomaly.model_in_force SET unfinished = false WHERE version = :version AND unfinished
