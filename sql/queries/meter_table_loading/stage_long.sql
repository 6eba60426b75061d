-- Staged readings of machines, for a wide table: `machine` is the name of the machine's column.
CREATE TEMP TABLE staged_long (
    line    bigint,
    moment  timestamptz,
    machine text,
    reading double precision
) ON COMMIT DROP
