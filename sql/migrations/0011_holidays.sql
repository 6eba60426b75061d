-- A machine may have a holiday calendar of its own.
ALTER TABLE anomaly.machines ADD COLUMN holidays text CHECK (holidays ~ '^[A-Z]{2}(-[A-Za-z0-9]+)?$');
COMMENT ON COLUMN anomaly.machines.holidays IS
    'Its public holidays, as DE or DE-BW; they count as Sundays from the next training on. Empty: ANOMALY_HOLIDAYS';
