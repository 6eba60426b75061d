-- The planner knows nothing of a new table until it is analysed.
ANALYZE pg_temp.staged_results
