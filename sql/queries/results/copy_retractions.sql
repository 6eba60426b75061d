COPY pg_temp.staged_retractions (machine_id, utc_timestamp) FROM STDIN (FORMAT binary)
