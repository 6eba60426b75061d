-- The first two lines of each key that several lines have, their moment, and how many such keys
-- there are; ten keys. If the layout allows a reading to be repeated, only lines with different
-- values count.
SELECT min(s.line),
       (array_agg(s.line ORDER BY s.line))[2],
       min({timestamp}),
       count(*) OVER ()
  FROM pg_temp.staged_readings AS s
 GROUP BY {keys}
HAVING count(*) > 1
   AND (NOT {may_repeat} OR count(DISTINCT ROW({staged_values})) > 1)
 ORDER BY 1
 LIMIT 10
