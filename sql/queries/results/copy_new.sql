COPY anomaly.anomaly_results ({columns}) FROM STDIN (FORMAT binary)
