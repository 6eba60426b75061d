SELECT anomaly.delete_history_before(:moment, :most)
