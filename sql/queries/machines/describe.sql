-- What people say of a machine.
UPDATE anomaly.machines
   SET name = :name, site = :site, time_zone = :time_zone,
       active_from = :active_from, active_to = :active_to,
       max_power_kw = :max_power_kw, rolls_over_at = :rolls_over_at,
       alert_budget = :alert_budget, holidays = :holidays
 WHERE machine_id = :machine_id
