-- Verdicts of a window as fixed-width binary rows, to compare with the readings
-- (no NULLs: after a reset power_diff is NaN).
COPY (
    SELECT r.machine_id, r.utc_timestamp, r.reading, coalesce(r.power_diff, 'NaN'), r.model_version,
           {quality}
      FROM anomaly.anomaly_results r
     WHERE r.utc_timestamp >= {start} AND r.utc_timestamp < {end}
) TO STDOUT (FORMAT binary)
