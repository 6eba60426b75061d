SELECT anomaly.drop_results_before(:moment)
