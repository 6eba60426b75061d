-- The first two lines of each time and machine that have different readings, their time, and how
-- many there are; ten of them.
SELECT min(line), (array_agg(line ORDER BY line))[2], moment, count(*) OVER ()
  FROM pg_temp.staged_long
 GROUP BY moment, machine
HAVING count(*) > 1
   AND count(DISTINCT ROW(reading)) > 1
 ORDER BY 1
 LIMIT 10
