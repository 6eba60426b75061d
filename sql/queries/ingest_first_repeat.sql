-- The first two lines of one key, and the moment they speak of. Where the layout
-- lets a reading be repeated, only lines that contradict each other count.
SELECT min(s.line),
       (array_agg(s.line ORDER BY s.line))[2],
       min({timestamp})
  FROM pg_temp.staged_readings AS s
 GROUP BY {keys}
HAVING count(*) > 1
   AND (NOT {may_repeat} OR count(DISTINCT ROW({staged_values})) > 1)
 ORDER BY 1
 LIMIT 1
