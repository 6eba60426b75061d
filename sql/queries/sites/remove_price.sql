-- Forget the price of a site that holds from a local day on.
DELETE FROM anomaly.energy_prices WHERE site = :site AND valid_from = :valid_from
