COPY pg_temp.staged_results ({columns}) FROM STDIN (FORMAT binary)
