SELECT count(*) FROM pg_temp.staged_readings
