-- What was decided about a version is done: its readings are scored anew, and it was told.
UPDATE anomaly.model_in_force SET unfinished = false WHERE version = :version AND unfinished
