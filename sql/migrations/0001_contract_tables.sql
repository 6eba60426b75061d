-- The tables of the contract: readings in, verdicts out, and what explains them.
--
-- Runs as anomaly_owner, once, in one transaction (see `anomaly migrate`).

CREATE SCHEMA IF NOT EXISTS anomaly;
COMMENT ON SCHEMA anomaly IS 'Meter readings, verdicts on them, and the models that gave them';

-- Readings ---------------------------------------------------------------

CREATE TABLE anomaly.meter_readings (
    utc_timestamp      timestamptz PRIMARY KEY,
    cet_cest_timestamp text,
    area_offices       double precision,
    area_room_1        double precision,
    area_room_2        double precision,
    area_room_3        double precision,
    area_room_4        double precision,
    compressor         double precision,
    cooling_aggregate  double precision,
    cooling_pumps      double precision,
    dishwasher         double precision,
    ev                 double precision,
    grid_import        double precision,
    machine_1          double precision,
    machine_2          double precision,
    machine_3          double precision,
    machine_4          double precision,
    machine_5          double precision,
    pv_facade          double precision,
    pv_roof            double precision,
    refrigerator       double precision,
    ventilation        double precision,
    ingested_at        timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX meter_readings_ingested_at ON anomaly.meter_readings (ingested_at);

COMMENT ON TABLE anomaly.meter_readings IS
    'One row a quarter-hour with every meter as a column; DAGs only ever read it. '
    'In production this is usually another table: see ANOMALY_SOURCE_*';
COMMENT ON COLUMN anomaly.meter_readings.utc_timestamp IS 'Start of the quarter-hour';
COMMENT ON COLUMN anomaly.meter_readings.cet_cest_timestamp IS 'The same moment in local time, as delivered; not used';
COMMENT ON COLUMN anomaly.meter_readings.area_offices IS 'Offices, cumulative kWh';
COMMENT ON COLUMN anomaly.meter_readings.area_room_1 IS 'Room 1, cumulative kWh';
COMMENT ON COLUMN anomaly.meter_readings.area_room_2 IS 'Room 2, cumulative kWh';
COMMENT ON COLUMN anomaly.meter_readings.area_room_3 IS 'Room 3, cumulative kWh';
COMMENT ON COLUMN anomaly.meter_readings.area_room_4 IS 'Room 4, cumulative kWh';
COMMENT ON COLUMN anomaly.meter_readings.compressor IS 'Compressor, cumulative kWh';
COMMENT ON COLUMN anomaly.meter_readings.cooling_aggregate IS 'Cooling aggregate, cumulative kWh';
COMMENT ON COLUMN anomaly.meter_readings.cooling_pumps IS 'Cooling pumps, cumulative kWh';
COMMENT ON COLUMN anomaly.meter_readings.dishwasher IS 'Dishwasher, cumulative kWh';
COMMENT ON COLUMN anomaly.meter_readings.ev IS 'Charging of electric vehicles, cumulative kWh';
COMMENT ON COLUMN anomaly.meter_readings.grid_import IS 'Import from the grid, cumulative kWh';
COMMENT ON COLUMN anomaly.meter_readings.machine_1 IS 'Machine 1, cumulative kWh';
COMMENT ON COLUMN anomaly.meter_readings.machine_2 IS 'Machine 2, cumulative kWh';
COMMENT ON COLUMN anomaly.meter_readings.machine_3 IS 'Machine 3, cumulative kWh';
COMMENT ON COLUMN anomaly.meter_readings.machine_4 IS 'Machine 4, cumulative kWh';
COMMENT ON COLUMN anomaly.meter_readings.machine_5 IS 'Machine 5, cumulative kWh';
COMMENT ON COLUMN anomaly.meter_readings.pv_facade IS 'Photovoltaics on the facade, cumulative kWh';
COMMENT ON COLUMN anomaly.meter_readings.pv_roof IS 'Photovoltaics on the roof, cumulative kWh';
COMMENT ON COLUMN anomaly.meter_readings.refrigerator IS 'Refrigerator, cumulative kWh';
COMMENT ON COLUMN anomaly.meter_readings.ventilation IS 'Ventilation, cumulative kWh';
COMMENT ON COLUMN anomaly.meter_readings.ingested_at IS 'When the row was written or last corrected: finds late readings';

-- Machines ---------------------------------------------------------------

CREATE TABLE anomaly.machines (
    machine_id    integer PRIMARY KEY,
    source_key    text NOT NULL UNIQUE,
    name          text NOT NULL,
    site          text NOT NULL DEFAULT '',
    time_zone     text NOT NULL DEFAULT 'UTC',
    active_from   timestamptz,
    active_to     timestamptz,
    max_power_kw  double precision CHECK (max_power_kw > 0),
    rolls_over_at double precision CHECK (rolls_over_at > 0),
    CHECK (active_from IS NULL OR active_to IS NULL OR active_from < active_to)
);
COMMENT ON TABLE anomaly.machines IS 'One row a machine; new ones are added when their first reading is seen';
COMMENT ON COLUMN anomaly.machines.machine_id IS 'The column''s suffix, the source''s integer id, or the next free number';
COMMENT ON COLUMN anomaly.machines.source_key IS 'Column (wide layout) or id (long layout) in the meter table';
COMMENT ON COLUMN anomaly.machines.name IS 'What operators call it';
COMMENT ON COLUMN anomaly.machines.site IS 'Where it stands';
COMMENT ON COLUMN anomaly.machines.time_zone IS 'IANA zone of its working day';
COMMENT ON COLUMN anomaly.machines.active_from IS 'In use from; empty: always was';
COMMENT ON COLUMN anomaly.machines.active_to IS 'Retired at; empty: in use';
COMMENT ON COLUMN anomaly.machines.max_power_kw IS 'Most it can draw; a reading above it is impossible. Empty: not checked';
COMMENT ON COLUMN anomaly.machines.rolls_over_at IS 'Value at which its counter starts again at 0, e.g. 1000000. Empty: a fall is a reset';

-- The ledger -------------------------------------------------------------

CREATE TYPE anomaly.run_origin AS ENUM ('live', 'late', 'backfill');
COMMENT ON TYPE anomaly.run_origin IS 'Why a verdict was written: on schedule, after its tick, or by a backfill';

CREATE SEQUENCE anomaly.fencing_token AS bigint;

CREATE TABLE anomaly.scoring_runs (
    run_id              bigint PRIMARY KEY,
    window_start        timestamptz NOT NULL,
    window_end          timestamptz NOT NULL,
    written_to          timestamptz NOT NULL,
    origin              anomaly.run_origin NOT NULL,
    dag_id              text,
    dag_run_id          text,
    command             text NOT NULL,
    readings            bigint NOT NULL DEFAULT 0,
    missing             bigint NOT NULL DEFAULT 0,
    duplicates          bigint NOT NULL DEFAULT 0,
    scored              bigint NOT NULL DEFAULT 0,
    inserted            bigint NOT NULL DEFAULT 0,
    updated             bigint NOT NULL DEFAULT 0,
    unchanged           bigint NOT NULL DEFAULT 0,
    retracted           bigint NOT NULL DEFAULT 0,
    retraction_withheld bigint NOT NULL DEFAULT 0,
    anomalies           bigint NOT NULL DEFAULT 0,
    ingested_through    timestamptz,
    package_version     text NOT NULL,
    published_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (window_start <= window_end),
    CHECK (window_end <= written_to)
);
CREATE INDEX scoring_runs_window ON anomaly.scoring_runs
    USING gist (tstzrange(window_start, written_to));
CREATE INDEX scoring_runs_live ON anomaly.scoring_runs (window_end) WHERE origin = 'live';

COMMENT ON TABLE anomaly.scoring_runs IS
    'The ledger: one row a published window. What is scored stands here, not in the run list of Airflow';
COMMENT ON COLUMN anomaly.scoring_runs.run_id IS
    'Fencing token, drawn before reading: of two overlapping windows the higher token wins';
COMMENT ON COLUMN anomaly.scoring_runs.window_start IS 'Start of the published window, included';
COMMENT ON COLUMN anomaly.scoring_runs.window_end IS 'End of the published window, not included';
COMMENT ON COLUMN anomaly.scoring_runs.written_to IS
    'End of what was re-scored behind the window because readings in it had changed';
COMMENT ON COLUMN anomaly.scoring_runs.origin IS 'live, late or backfill';
COMMENT ON COLUMN anomaly.scoring_runs.dag_id IS 'Airflow''s dag_id; empty for the command line';
COMMENT ON COLUMN anomaly.scoring_runs.dag_run_id IS 'Airflow''s run_id; empty for the command line';
COMMENT ON COLUMN anomaly.scoring_runs.command IS 'What asked for it: a DAG''s name or a command';
COMMENT ON COLUMN anomaly.scoring_runs.readings IS 'Finite readings found in the window';
COMMENT ON COLUMN anomaly.scoring_runs.missing IS 'Empty, NaN or infinite readings: they get no verdict';
COMMENT ON COLUMN anomaly.scoring_runs.duplicates IS 'Readings left out because another had their machine and time';
COMMENT ON COLUMN anomaly.scoring_runs.scored IS 'Verdicts computed, those behind the window included';
COMMENT ON COLUMN anomaly.scoring_runs.inserted IS 'Verdicts that are new';
COMMENT ON COLUMN anomaly.scoring_runs.updated IS 'Verdicts that changed; the old ones are in the history';
COMMENT ON COLUMN anomaly.scoring_runs.unchanged IS 'Verdicts that were there already, not written again';
COMMENT ON COLUMN anomaly.scoring_runs.retracted IS 'Verdicts removed because their reading was deleted';
COMMENT ON COLUMN anomaly.scoring_runs.retraction_withheld IS
    'Verdicts without a reading that were kept: more than the retraction limit allows';
COMMENT ON COLUMN anomaly.scoring_runs.anomalies IS 'Verdicts with anomaly = 1 among those scored';
COMMENT ON COLUMN anomaly.scoring_runs.ingested_through IS 'Live runs: newest ingested_at seen in the meter table';
COMMENT ON COLUMN anomaly.scoring_runs.package_version IS 'Version of the product that scored';
COMMENT ON COLUMN anomaly.scoring_runs.published_at IS 'When the window was committed';

-- Models -----------------------------------------------------------------

CREATE TABLE anomaly.model_versions (
    version           integer PRIMARY KEY CHECK (version > 0),
    detector          text NOT NULL,
    artefact          text NOT NULL UNIQUE,
    sha256            jsonb NOT NULL,
    trained_from      timestamptz NOT NULL,
    trained_to        timestamptz NOT NULL,
    readings          bigint NOT NULL,
    parameters        jsonb NOT NULL,
    metrics           jsonb NOT NULL DEFAULT '{}',
    library_versions  jsonb NOT NULL,
    status            text NOT NULL DEFAULT 'registered'
                      CHECK (status IN ('registered', 'refused', 'retired')),
    registered_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    registered_by     text NOT NULL,
    CHECK (trained_from < trained_to)
);
COMMENT ON TABLE anomaly.model_versions IS 'Every trained model; its files lie below ANOMALY_MODELS_URL';
COMMENT ON COLUMN anomaly.model_versions.version IS '1, 2, 3, ... in the order of registration';
COMMENT ON COLUMN anomaly.model_versions.detector IS 'Which detector it is';
COMMENT ON COLUMN anomaly.model_versions.artefact IS 'Folder of its files, relative to ANOMALY_MODELS_URL';
COMMENT ON COLUMN anomaly.model_versions.sha256 IS 'Hash of each file; a file that differs is never opened';
COMMENT ON COLUMN anomaly.model_versions.trained_from IS 'Start of the training window';
COMMENT ON COLUMN anomaly.model_versions.trained_to IS 'End of the training window, not included';
COMMENT ON COLUMN anomaly.model_versions.readings IS 'Readings it was trained on';
COMMENT ON COLUMN anomaly.model_versions.parameters IS 'Settings it was trained with';
COMMENT ON COLUMN anomaly.model_versions.metrics IS 'What was measured on it';
COMMENT ON COLUMN anomaly.model_versions.library_versions IS 'Versions of Python and the libraries that made it';
COMMENT ON COLUMN anomaly.model_versions.status IS 'registered, refused by the judge, or retired (files removed)';
COMMENT ON COLUMN anomaly.model_versions.registered_at IS 'When it was registered';
COMMENT ON COLUMN anomaly.model_versions.registered_by IS 'Who or what trained it';

CREATE TABLE anomaly.model_in_force (
    entry_id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    effective_from timestamptz NOT NULL,
    effective_to   timestamptz,
    version        integer NOT NULL REFERENCES anomaly.model_versions,
    recorded_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    recorded_by    text NOT NULL,
    reason         text NOT NULL DEFAULT '',
    superseded_at  timestamptz,
    CHECK (effective_to IS NULL OR effective_from < effective_to),
    CONSTRAINT model_in_force_no_overlap EXCLUDE USING gist
        (tstzrange(effective_from, effective_to) WITH &&) WHERE (superseded_at IS NULL)
);
COMMENT ON TABLE anomaly.model_in_force IS
    'The version map: a reading is scored by the version in force at its own timestamp';
COMMENT ON COLUMN anomaly.model_in_force.entry_id IS 'Order of recording';
COMMENT ON COLUMN anomaly.model_in_force.effective_from IS 'First reading time it judges; -infinity for the first';
COMMENT ON COLUMN anomaly.model_in_force.effective_to IS 'End of its time, not included; empty: still in force';
COMMENT ON COLUMN anomaly.model_in_force.version IS 'The version in force';
COMMENT ON COLUMN anomaly.model_in_force.recorded_at IS 'When this was decided';
COMMENT ON COLUMN anomaly.model_in_force.recorded_by IS 'Who decided it';
COMMENT ON COLUMN anomaly.model_in_force.reason IS 'Why';
COMMENT ON COLUMN anomaly.model_in_force.superseded_at IS
    'When a later decision replaced this entry; empty: it counts. Replaced entries stay for the record';

-- Verdicts ---------------------------------------------------------------

CREATE TYPE anomaly.reading_quality AS ENUM (
    'ok', 'learning', 'gap', 'irregular', 'duplicate', 'first', 'rollover',
    'stuck', 'reset', 'impossible'
);
COMMENT ON TYPE anomaly.reading_quality IS
    'What is to be known about a reading; where several apply the later in this list stands';

CREATE TABLE anomaly.anomaly_results (
    machine_id     integer NOT NULL,
    utc_timestamp  timestamptz NOT NULL,
    reading        double precision NOT NULL,
    power_kw       double precision,
    power_diff     double precision,
    anomaly_score  double precision,
    threshold      double precision NOT NULL,
    anomaly        smallint NOT NULL CHECK (anomaly IN (0, 1)),
    reason         text,
    quality        anomaly.reading_quality NOT NULL,
    origin         anomaly.run_origin NOT NULL,
    model_version  integer NOT NULL,
    run_id         bigint NOT NULL,
    scored_at      timestamptz NOT NULL,
    PRIMARY KEY (machine_id, utc_timestamp),
    CONSTRAINT meter_faults_are_not_anomalies CHECK (
        quality < 'stuck' OR (anomaly = 0 AND anomaly_score IS NULL)
    ),
    CONSTRAINT scored_unless_meter_fault CHECK (quality >= 'stuck' OR anomaly_score IS NOT NULL)
) PARTITION BY RANGE (utc_timestamp);
COMMENT ON TABLE anomaly.anomaly_results IS
    'One current verdict a machine-reading, partitioned by month; replaced ones are in anomaly_results_history';
COMMENT ON COLUMN anomaly.anomaly_results.machine_id IS 'The machine: anomaly.machines';
COMMENT ON COLUMN anomaly.anomaly_results.utc_timestamp IS 'Start of the reading''s interval';
COMMENT ON COLUMN anomaly.anomaly_results.reading IS 'The reading as metered: kWh counter or W';
COMMENT ON COLUMN anomaly.anomaly_results.power_kw IS
    'Mean power in kW over the time since the previous reading; empty for the first and after a reset';
COMMENT ON COLUMN anomaly.anomaly_results.power_diff IS
    'Change of the reading per elapsed hour: kW for counters, W/h for watts; 0 for the first, empty after a reset';
COMMENT ON COLUMN anomaly.anomaly_results.anomaly_score IS
    '0 to 1, higher is more abnormal; empty for meter faults';
COMMENT ON COLUMN anomaly.anomaly_results.threshold IS 'The score above which a reading is an anomaly';
COMMENT ON COLUMN anomaly.anomaly_results.anomaly IS '1: anomaly, 0: normal';
COMMENT ON COLUMN anomaly.anomaly_results.reason IS 'Why, in words; empty when there is nothing to say';
COMMENT ON COLUMN anomaly.anomaly_results.quality IS 'What is to be known about the reading: docs/semantics.md';
COMMENT ON COLUMN anomaly.anomaly_results.origin IS 'live, late or backfill: what wrote this verdict';
COMMENT ON COLUMN anomaly.anomaly_results.model_version IS 'The version that judged';
COMMENT ON COLUMN anomaly.anomaly_results.run_id IS 'The ledger''s row that wrote it: anomaly.scoring_runs';
COMMENT ON COLUMN anomaly.anomaly_results.scored_at IS 'When this verdict was written';

CREATE TABLE anomaly.anomaly_results_history (
    LIKE anomaly.anomaly_results INCLUDING COMMENTS,
    superseded_at timestamptz NOT NULL,
    superseded_by bigint NOT NULL,
    cause         text NOT NULL CHECK (cause IN ('corrected', 'retracted', 'rescored')),
    PRIMARY KEY (machine_id, utc_timestamp, superseded_at)
);
COMMENT ON TABLE anomaly.anomaly_results_history IS 'Verdicts that a later one replaced or that were retracted';
COMMENT ON COLUMN anomaly.anomaly_results_history.superseded_at IS 'When it stopped being the current verdict';
COMMENT ON COLUMN anomaly.anomaly_results_history.superseded_by IS 'The ledger''s row that replaced it';
COMMENT ON COLUMN anomaly.anomaly_results_history.cause IS
    'corrected: its reading changed; retracted: its reading was deleted; rescored: context or model changed';

-- Incidents and labels ---------------------------------------------------

CREATE TABLE anomaly.incidents (
    incident_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    machine_id  integer NOT NULL REFERENCES anomaly.machines,
    kind        text NOT NULL CHECK (kind IN ('machine', 'meter')),
    started_at  timestamptz NOT NULL,
    ended_at    timestamptz,
    peak_score  double precision,
    severity    text,
    reason      text,
    excess_kwh  double precision,
    state       text NOT NULL DEFAULT 'open' CHECK
                (state IN ('open', 'acknowledged', 'closed', 'silenced', 'withdrawn', 'merged')),
    merged_into bigint REFERENCES anomaly.incidents,
    CHECK (ended_at IS NULL OR started_at <= ended_at),
    CHECK ((state = 'merged') = (merged_into IS NOT NULL))
);
COMMENT ON TABLE anomaly.incidents IS 'Episodes of abnormal readings of one machine, or of a meter fault';
COMMENT ON COLUMN anomaly.incidents.incident_id IS 'Stays the same when the episode is computed again';
COMMENT ON COLUMN anomaly.incidents.machine_id IS 'The machine';
COMMENT ON COLUMN anomaly.incidents.kind IS 'machine: the machine behaves oddly; meter: the meter does';
COMMENT ON COLUMN anomaly.incidents.started_at IS 'First abnormal reading';
COMMENT ON COLUMN anomaly.incidents.ended_at IS 'End of the last one; empty while it lasts';
COMMENT ON COLUMN anomaly.incidents.peak_score IS 'Highest anomaly_score in it';
COMMENT ON COLUMN anomaly.incidents.severity IS 'How bad';
COMMENT ON COLUMN anomaly.incidents.reason IS 'Why, in words';
COMMENT ON COLUMN anomaly.incidents.excess_kwh IS 'Energy beyond the usual';
COMMENT ON COLUMN anomaly.incidents.state IS 'open, acknowledged, closed, silenced, withdrawn or merged';
COMMENT ON COLUMN anomaly.incidents.merged_into IS 'The incident that took this one over';

CREATE TABLE anomaly.labels (
    label_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    machine_id  integer NOT NULL REFERENCES anomaly.machines,
    during      tstzrange NOT NULL CHECK (NOT isempty(during)),
    label       text NOT NULL CHECK (label IN ('real', 'false_alarm', 'maintenance', 'meter_fault')),
    note        text NOT NULL DEFAULT '',
    labelled_by text NOT NULL,
    labelled_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE anomaly.labels IS 'What people said about a machine and a range of time';
COMMENT ON COLUMN anomaly.labels.label_id IS 'Order of labelling';
COMMENT ON COLUMN anomaly.labels.machine_id IS 'The machine';
COMMENT ON COLUMN anomaly.labels.during IS 'The range it speaks of';
COMMENT ON COLUMN anomaly.labels.label IS 'real, false_alarm, maintenance or meter_fault';
COMMENT ON COLUMN anomaly.labels.note IS 'What else they said';
COMMENT ON COLUMN anomaly.labels.labelled_by IS 'Who said it';
COMMENT ON COLUMN anomaly.labels.labelled_at IS 'When they said it';
