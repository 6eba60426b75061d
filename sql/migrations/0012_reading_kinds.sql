-- Comments that name every kind of reading: docs/reference/tables-and-views.md is made from them.

COMMENT ON COLUMN anomaly.anomaly_results.reading IS
    'The reading as it is in the meter table, in the unit that it has there';
COMMENT ON COLUMN anomaly.anomaly_results_history.reading IS
    'The reading as it was in the meter table, in the unit that it has there';
COMMENT ON COLUMN anomaly.anomaly_results.power_kw IS
    'Mean power in kW since the previous reading; of energy per interval, that of the interval; '
    'empty for the first reading, after a reset and at the restart of a counter';
COMMENT ON COLUMN anomaly.anomaly_results_history.power_kw IS
    'Mean power in kW since the previous reading; of energy per interval, that of the interval; '
    'empty for the first reading, after a reset and at the restart of a counter';
COMMENT ON COLUMN anomaly.anomaly_results.power_diff IS
    'Change per elapsed hour: kW for counters, else W/h; 0 for the first reading of a count, empty after a reset';
COMMENT ON COLUMN anomaly.anomaly_results_history.power_diff IS
    'Change per elapsed hour: kW for counters, else W/h; 0 for the first reading of a count, empty after a reset';
COMMENT ON COLUMN anomaly.machines.rolls_over_at IS
    'Value at which its counter starts again at 0, in kWh whatever the unit of the readings, e.g. 1000000. '
    'Empty: a fall is a reset. Not used for counters that restart each day';
