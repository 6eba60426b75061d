-- Replace rows whose readings differ. Equal rows are not touched, so that loading a file again
-- writes nothing. A long table may hold a key twice.
WITH changed AS (
    UPDATE {table} AS t
       SET {assignments}
      FROM pg_temp.staged_readings AS s
     WHERE {same_key}
       AND ROW({stored_values}) IS DISTINCT FROM ROW({staged_values})
 RETURNING s.line
)
SELECT count(DISTINCT line) FROM changed
