-- Prices as they were set, newest first.
SELECT site, valid_from, price_per_kwh, currency
  FROM anomaly.energy_prices
 ORDER BY site, valid_from DESC
