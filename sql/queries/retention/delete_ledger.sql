SELECT anomaly.delete_ledger_before(:moment, :most)
