-- Keep the first of several equal lines.
DELETE FROM pg_temp.staged_readings AS s
 USING pg_temp.staged_readings AS t
 WHERE {same_key}
   AND t.line < s.line
