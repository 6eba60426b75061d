-- To lock a row, a role needs the right to update a column of it. It was the name, so a role that
-- may lock could also take a lock's name away.
ALTER TABLE anomaly.locks ADD COLUMN lockable boolean NOT NULL DEFAULT true;
COMMENT ON COLUMN anomaly.locks.lockable IS
    'Says nothing: whoever may update it may lock the row, and change no name';
REVOKE UPDATE ON anomaly.locks FROM anomaly_scorer, anomaly_trainer;
