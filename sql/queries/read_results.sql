-- Verdicts of a window as fixed-width binary rows, to compare with the readings
-- (no NULLs: after a reset power_diff is NaN).
COPY (
    SELECT machine_id, utc_timestamp, reading, coalesce(power_diff, 'NaN'), model_version,
           array_position(enum_range(NULL::anomaly.reading_quality), quality) - 1
      FROM anomaly.anomaly_results
     WHERE utc_timestamp >= {start} AND utc_timestamp < {end}
) TO STDOUT (FORMAT binary)
