-- Readings that verdicts were given for, as fixed-width binary rows. They are what the meter
-- table held at that time, in case it does not hold them any more.
COPY (
    SELECT machine_id, utc_timestamp, reading
      FROM anomaly.anomaly_results
     WHERE utc_timestamp >= {start} AND utc_timestamp < {end}
       AND ({machines}::integer[] IS NULL OR machine_id = ANY ({machines}::integer[]))
) TO STDOUT (FORMAT binary)
