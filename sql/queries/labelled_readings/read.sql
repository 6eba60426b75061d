-- Labelled readings of a long table; none where a column is missing.
SELECT {columns} FROM {table} WHERE {complete}
