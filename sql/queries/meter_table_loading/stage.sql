-- The staging table of a load: its readings with the file's line numbers, in the types of the
-- meter table.
CREATE TEMP TABLE staged_readings ON COMMIT DROP AS
SELECT 0::bigint AS line, {columns} FROM {table} WITH NO DATA
