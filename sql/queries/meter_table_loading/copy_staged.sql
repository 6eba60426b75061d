COPY pg_temp.staged_readings (line, {columns}) FROM STDIN (FORMAT csv)
