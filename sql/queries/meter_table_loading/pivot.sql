-- One row per time, from one per machine and time. A machine that the file does not name at a time
-- keeps the value that the table has.
INSERT INTO pg_temp.staged_readings (line, {columns})
SELECT min(s.line), s.moment, {picked}
  FROM pg_temp.staged_long AS s
  LEFT JOIN {table} AS t ON t.{key} = s.moment
 GROUP BY s.moment
