-- Comments in plain words: docs/reference/tables-and-views.md is made from them.

COMMENT ON TABLE anomaly.meter_readings IS
    'One row per quarter-hour, one column per meter; the DAGs only read it. '
    'In production this is usually another table: see ANOMALY_SOURCE_*';
COMMENT ON COLUMN anomaly.meter_readings.ingested_at IS
    'When the row was written or last corrected; late readings are found by it';

COMMENT ON TABLE anomaly.machines IS
    'One row per machine; a new machine is added when its first reading is seen';
COMMENT ON COLUMN anomaly.machines.max_power_kw IS
    'Most power that the machine can draw, kW; a reading above it is impossible. Empty: not checked';
COMMENT ON COLUMN anomaly.machines.alert_budget IS
    'Bearable incidents per week, from the next training on; empty: ANOMALY_ALERT_BUDGET';

COMMENT ON TABLE anomaly.scoring_runs IS
    'The ledger: one row per published window. It says what is scored; the run list of Airflow does not';
COMMENT ON COLUMN anomaly.scoring_runs.written_to IS
    'End of what was scored again after the window because readings in the window had changed';
COMMENT ON COLUMN anomaly.scoring_runs.written_from IS
    'Start of what was scored again before the window because readings in the window contradict it';
COMMENT ON COLUMN anomaly.scoring_runs.scored IS
    'Verdicts computed of the window, and those around it that changed with it';

COMMENT ON TABLE anomaly.anomaly_results IS
    'One current verdict per reading, partitioned by month; replaced verdicts are in anomaly_results_history';
COMMENT ON COLUMN anomaly.anomaly_results.quality IS
    'What is known about the reading; docs/explanation/semantics.md explains each value';
COMMENT ON COLUMN anomaly.anomaly_results_history.quality IS
    'What was known about the reading; docs/explanation/semantics.md explains each value';
COMMENT ON COLUMN anomaly.anomaly_results.run_id IS
    'The row of anomaly.scoring_runs that wrote it';
COMMENT ON COLUMN anomaly.anomaly_results_history.run_id IS
    'The row of anomaly.scoring_runs that had written it';
COMMENT ON COLUMN anomaly.anomaly_results_history.superseded_by IS
    'The row of anomaly.scoring_runs that replaced or retracted it';
COMMENT ON TYPE anomaly.reading_quality IS
    'What is known about a reading; where several values apply, the later one in this list is stored';

COMMENT ON TABLE anomaly.acknowledgements IS 'Everybody who acknowledged an incident, once each';
COMMENT ON COLUMN anomaly.incidents.acknowledged_at IS 'When it was first acknowledged';
COMMENT ON COLUMN anomaly.incidents.acknowledged_by IS 'Who acknowledged it first';
COMMENT ON COLUMN anomaly.incidents.settled IS
    'The machine has behaved so for days: a new normal, which training learns later';
COMMENT ON COLUMN anomaly.labels.withdrawn_as IS
    'Number of the withdrawal, from the sequence of label_id: trainings before it counted the label';
COMMENT ON COLUMN anomaly.model_in_force.unfinished IS
    'Its readings are being scored again, or the command was killed: the same command finishes it';
COMMENT ON TABLE anomaly.locks IS
    'What only one transaction may do at a time: it locks the row of that name until it ends';
COMMENT ON SEQUENCE anomaly.fencing_token IS
    'Numbers of scoring attempts, drawn before reading: see anomaly.scoring_runs.run_id';
