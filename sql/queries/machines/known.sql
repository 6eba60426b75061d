SELECT machine_id, source_key, name, site, time_zone, active_from, active_to, alert_budget, holidays,
       max_power_kw, rolls_over_at
  FROM anomaly.machines
 WHERE (machine_id = ANY(CAST(:machines AS integer[]))) IS NOT FALSE -- NULL: all machines
 ORDER BY machine_id
