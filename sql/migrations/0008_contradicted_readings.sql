-- Readings that the following ones contradict: two more qualities, and how far before its
-- window an attempt has written.

ALTER TYPE anomaly.reading_quality ADD VALUE 'catch_up';
ALTER TYPE anomaly.reading_quality ADD VALUE 'contradicted';

ALTER TABLE anomaly.scoring_runs ADD COLUMN written_from timestamptz;
UPDATE anomaly.scoring_runs SET written_from = window_start;
ALTER TABLE anomaly.scoring_runs
    ALTER COLUMN written_from SET NOT NULL,
    ADD CHECK (written_from <= window_start);
COMMENT ON COLUMN anomaly.scoring_runs.written_from IS
    'Start of what was re-scored before the window because readings in it contradict it';

DROP INDEX anomaly.scoring_runs_window;
CREATE INDEX scoring_runs_written ON anomaly.scoring_runs
    USING gist (tstzrange(written_from, written_to));
