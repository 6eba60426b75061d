-- Labelled readings of a long table, as the CSV file that they could be as well; where a
-- column is missing only the names of those that are there, for the error to list.
COPY (SELECT {columns} FROM {table} WHERE {complete}) TO STDOUT (FORMAT csv, HEADER)
