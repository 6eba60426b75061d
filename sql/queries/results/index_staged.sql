-- The planner knows nothing about a new table until it is analysed.
ANALYZE pg_temp.staged_results
