-- Where a load lays its readings before they are merged, with the file's line
-- numbers, in the meter table's own types.
CREATE TEMP TABLE staged_readings ON COMMIT DROP AS
SELECT 0::bigint AS line, {columns} FROM {table} WITH NO DATA
