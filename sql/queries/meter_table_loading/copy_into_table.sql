COPY {table} ({written}) FROM STDIN (FORMAT csv)
