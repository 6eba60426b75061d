SELECT anomaly.ensure_partitions(:first, :last)
