-- What energy costs at a site from a local day on.
INSERT INTO anomaly.energy_prices (site, valid_from, price_per_kwh, currency)
VALUES (:site, :valid_from, :price_per_kwh, :currency)
    ON CONFLICT (site, valid_from) DO UPDATE
   SET price_per_kwh = excluded.price_per_kwh, currency = excluded.currency
