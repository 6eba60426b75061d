COPY pg_temp.staged_long FROM STDIN (FORMAT csv)
