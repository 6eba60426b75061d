COPY anomaly.anomaly_results (
    machine_id, utc_timestamp, reading, power_kw, power_diff, anomaly_score, threshold, anomaly,
    reason, quality, origin, model_version, expected_kw, run_id, scored_at
) FROM STDIN (FORMAT binary)
