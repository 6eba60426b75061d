-- Machines by number, after the last one of the page before.
SELECT machine_id, machine, site, time_zone, active_from, active_to, max_power_kw, alert_budget,
       source_key
  FROM bi.machines
 WHERE (CAST(:after AS integer) IS NULL OR machine_id > :after)
 ORDER BY machine_id
 LIMIT :rows
