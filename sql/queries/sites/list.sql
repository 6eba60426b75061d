-- Each site that has machines, or a price or shifts of its own, with its machines, today's price and its shifts.
SELECT s.name AS site,
       (SELECT count(*) FROM anomaly.machines m WHERE m.site = s.name) AS machines,
       p.price_per_kwh, p.currency, p.starts AS price_since,
       (SELECT string_agg(format('%s %s-%s', f.name, to_char(f.starts, 'HH24:MI'),
                                 to_char(f.ends, 'HH24:MI')), ', ' ORDER BY f.starts)
          FROM anomaly.shifts f
         WHERE f.site = CASE WHEN EXISTS (SELECT FROM anomaly.shifts o WHERE o.site = s.name)
                             THEN s.name ELSE '' END) AS shifts
  FROM anomaly.sites s
  LEFT JOIN anomaly.price_periods p
    ON p.site_id = s.site_id AND current_date >= p.starts AND current_date < p.ends
 WHERE EXISTS (SELECT FROM anomaly.machines m WHERE m.site = s.name)
    OR s.name <> '' AND (EXISTS (SELECT FROM anomaly.energy_prices o WHERE o.site = s.name)
                         OR EXISTS (SELECT FROM anomaly.shifts o WHERE o.site = s.name))
 ORDER BY s.name
