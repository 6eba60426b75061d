-- A machine's alert budget is a number that a week can hold; NaN and infinity are none.

UPDATE anomaly.machines SET alert_budget = NULL WHERE alert_budget IN ('NaN', 'Infinity');
UPDATE anomaly.machines SET alert_budget = 1000 WHERE alert_budget > 1000;
ALTER TABLE anomaly.machines
    ADD CONSTRAINT machines_alert_budget_bearable CHECK (alert_budget <= 1000);
