SELECT anomaly.ensure_partitions(:start, :end)
