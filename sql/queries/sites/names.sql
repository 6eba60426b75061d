-- Names of all sites.
SELECT name FROM anomaly.sites ORDER BY name
