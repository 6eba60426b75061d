-- When rows that this transaction inserts are written, by their written-at column.
SELECT now()
