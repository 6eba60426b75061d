-- Verdicts of a window as fixed-width binary rows, to compare with the readings
-- (no NULLs: after a reset power_diff is NaN).
COPY (
    SELECT r.machine_id, r.utc_timestamp, r.reading, coalesce(r.power_diff, 'NaN'), r.model_version,
           r.features_version, {quality}
      FROM anomaly.anomaly_results r
     WHERE r.utc_timestamp >= {start} AND r.utc_timestamp < {end}
       AND ({machines}::integer[] IS NULL OR r.machine_id = ANY({machines}::integer[]))
) TO STDOUT (FORMAT binary)
