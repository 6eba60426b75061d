-- Readings that verdicts are on, as fixed-width binary rows: what the meter table held when
-- they were judged, should it hold them no more.
COPY (
    SELECT machine_id, utc_timestamp, reading
      FROM anomaly.anomaly_results
     WHERE utc_timestamp >= {start} AND utc_timestamp < {end}
       AND ({machines}::integer[] IS NULL OR machine_id = ANY ({machines}::integer[]))
) TO STDOUT (FORMAT binary)
