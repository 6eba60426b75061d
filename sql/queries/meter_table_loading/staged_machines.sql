SELECT array_agg(DISTINCT machine ORDER BY machine) FROM pg_temp.staged_long
