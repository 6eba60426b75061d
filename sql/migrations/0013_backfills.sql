-- Backfills: what was asked, what is finished, and what changed.

-- Which preprocessing and signals a verdict is made of. Rows of earlier versions of the product
-- are of the first.
ALTER TABLE anomaly.anomaly_results ADD COLUMN features_version smallint NOT NULL DEFAULT 1;
ALTER TABLE anomaly.anomaly_results_history ADD COLUMN features_version smallint NOT NULL DEFAULT 1;
COMMENT ON COLUMN anomaly.anomaly_results.features_version IS
    'Which preprocessing and signals it was judged on; a newer version of the product may have newer ones';
COMMENT ON COLUMN anomaly.anomaly_results_history.features_version IS
    'Which preprocessing and signals it was judged on; a newer version of the product may have newer ones';

DROP FUNCTION anomaly.anomaly_results_as_of(timestamptz);
CREATE FUNCTION anomaly.anomaly_results_as_of(moment timestamptz)
RETURNS TABLE (
    machine_id integer, utc_timestamp timestamptz, reading double precision,
    power_kw double precision, power_diff double precision,
    anomaly_score double precision, threshold double precision, anomaly smallint,
    reason text, quality anomaly.reading_quality, origin anomaly.run_origin,
    model_version integer, run_id bigint, scored_at timestamptz, expected_kw double precision,
    features_version smallint
)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT r.machine_id, r.utc_timestamp, r.reading, r.power_kw, r.power_diff, r.anomaly_score,
           r.threshold, r.anomaly, r.reason, r.quality, r.origin, r.model_version, r.run_id,
           r.scored_at, r.expected_kw, r.features_version
      FROM anomaly.anomaly_results r
     WHERE r.scored_at <= moment
     UNION ALL
    SELECT h.machine_id, h.utc_timestamp, h.reading, h.power_kw, h.power_diff, h.anomaly_score,
           h.threshold, h.anomaly, h.reason, h.quality, h.origin, h.model_version, h.run_id,
           h.scored_at, h.expected_kw, h.features_version
      FROM anomaly.anomaly_results_history h
     WHERE h.scored_at <= moment AND moment < h.superseded_at
$$;
COMMENT ON FUNCTION anomaly.anomaly_results_as_of(timestamptz) IS
    'The results table as it stood at a moment: answers "what did operators see then?"';
REVOKE ALL ON FUNCTION anomaly.anomaly_results_as_of(timestamptz) FROM PUBLIC;

CREATE TABLE anomaly.backfills (
    backfill_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    starts_at    timestamptz NOT NULL,
    ends_at      timestamptz NOT NULL CHECK (starts_at < ends_at),
    machines     integer[],
    version      integer REFERENCES anomaly.model_versions,
    mode         text NOT NULL CHECK (mode IN ('missing', 'changed', 'everything')),
    chunk        interval NOT NULL,
    piece        interval NOT NULL,
    command      text NOT NULL,
    dag_run_id   text,
    started_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at  timestamptz,
    report       jsonb
);
COMMENT ON TABLE anomaly.backfills IS 'Backfills: what was asked of each, and its report';
COMMENT ON COLUMN anomaly.backfills.backfill_id IS 'In the order of their start';
COMMENT ON COLUMN anomaly.backfills.starts_at IS 'Start of the range';
COMMENT ON COLUMN anomaly.backfills.ends_at IS 'End of the range, not included';
COMMENT ON COLUMN anomaly.backfills.machines IS 'The machines that were asked for; empty: all';
COMMENT ON COLUMN anomaly.backfills.version IS
    'The model version that was put in force for the range; empty: those that were in force';
COMMENT ON COLUMN anomaly.backfills.mode IS
    'missing: readings without a verdict; changed: those, and verdicts that are out of date; everything';
COMMENT ON COLUMN anomaly.backfills.chunk IS 'Length of a chunk: a task, in Airflow';
COMMENT ON COLUMN anomaly.backfills.piece IS 'Length of what of a chunk is read and published at once';
COMMENT ON COLUMN anomaly.backfills.command IS 'The DAG or the command';
COMMENT ON COLUMN anomaly.backfills.dag_run_id IS 'The run of the DAG';
COMMENT ON COLUMN anomaly.backfills.started_at IS 'When the first chunk could begin';
COMMENT ON COLUMN anomaly.backfills.finished_at IS 'When the last chunk had ended; empty: it is running, or was stopped';
COMMENT ON COLUMN anomaly.backfills.report IS 'What it changed: docs/how-to/backfill.md';

CREATE TABLE anomaly.backfill_pieces (
    backfill_id   bigint NOT NULL REFERENCES anomaly.backfills,
    starts_at     timestamptz NOT NULL,
    ends_at       timestamptz NOT NULL,
    first_machine integer NOT NULL,
    last_machine  integer NOT NULL,
    readings      bigint NOT NULL,
    finished_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (backfill_id, starts_at, first_machine)
);
COMMENT ON TABLE anomaly.backfill_pieces IS
    'Pieces of backfills that are finished: a backfill that goes on leaves them out';
COMMENT ON COLUMN anomaly.backfill_pieces.backfill_id IS 'The backfill';
COMMENT ON COLUMN anomaly.backfill_pieces.starts_at IS 'Start of the piece';
COMMENT ON COLUMN anomaly.backfill_pieces.ends_at IS 'End of the piece, not included';
COMMENT ON COLUMN anomaly.backfill_pieces.first_machine IS 'The first machine of its group; 0: of all machines';
COMMENT ON COLUMN anomaly.backfill_pieces.last_machine IS 'The last machine of its group';
COMMENT ON COLUMN anomaly.backfill_pieces.readings IS 'Readings in it';
COMMENT ON COLUMN anomaly.backfill_pieces.finished_at IS 'When it was finished';

ALTER TABLE anomaly.scoring_runs
    ADD COLUMN machines    integer[],
    ADD COLUMN backfill_id bigint REFERENCES anomaly.backfills,
    ADD COLUMN changes     jsonb;
CREATE INDEX scoring_runs_backfill ON anomaly.scoring_runs (backfill_id) WHERE backfill_id IS NOT NULL;
COMMENT ON COLUMN anomaly.scoring_runs.machines IS 'The machines that were scored; empty: all';
COMMENT ON COLUMN anomaly.scoring_runs.backfill_id IS 'The backfill that it belongs to';
COMMENT ON COLUMN anomaly.scoring_runs.changes IS
    'Of a backfill: verdicts that say the opposite now, per machine, and incidents opened, merged and withdrawn';
