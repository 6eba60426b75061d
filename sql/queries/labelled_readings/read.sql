-- Labelled readings of a long table, as CSV like a file of them. If a column is missing, only
-- the header with the existing columns is returned, for the error message.
COPY (SELECT {columns} FROM {table} WHERE {complete}) TO STDOUT (FORMAT csv, HEADER)
