-- Alerts: what people are to be told, written with what it is about, and the messages that tell it.

CREATE TABLE anomaly.alert_events (
    event_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key         text NOT NULL UNIQUE,
    about       text NOT NULL,
    event       text NOT NULL,
    kind        text NOT NULL CHECK (kind IN ('machine', 'meter', 'pipeline', 'model')),
    severity    text NOT NULL CHECK (severity IN ('notice', 'warning', 'critical')),
    incident_id bigint REFERENCES anomaly.incidents ON DELETE CASCADE,
    says        text NOT NULL DEFAULT '',
    created_at  timestamptz NOT NULL,
    held_until  timestamptz,
    decided_at  timestamptz,
    decision    text
);
CREATE INDEX alert_events_pending ON anomaly.alert_events (event_id) WHERE decided_at IS NULL;
CREATE INDEX alert_events_incident ON anomaly.alert_events (incident_id);
CREATE INDEX alert_events_about ON anomaly.alert_events (about);
COMMENT ON TABLE anomaly.alert_events IS
    'The outbox: what people are to be told, written in the transaction of what it is about';
COMMENT ON COLUMN anomaly.alert_events.event_id IS 'In the order in which they were written';
COMMENT ON COLUMN anomaly.alert_events.key IS
    'What it is about and what happened: nothing is told twice';
COMMENT ON COLUMN anomaly.alert_events.about IS
    'What it is about: an incident, or one case of the pipeline; what began and its end have the same';
COMMENT ON COLUMN anomaly.alert_events.event IS
    'opened, worsened, ended or escalated for incidents; stale, unscored, unchecked, refused, over_budget, failed, and their end';
COMMENT ON COLUMN anomaly.alert_events.kind IS 'machine, meter, pipeline or model';
COMMENT ON COLUMN anomaly.alert_events.severity IS 'notice, warning or critical';
COMMENT ON COLUMN anomaly.alert_events.incident_id IS 'The incident; empty: it is about none';
COMMENT ON COLUMN anomaly.alert_events.says IS 'What is told, where no incident says it';
COMMENT ON COLUMN anomaly.alert_events.created_at IS 'When it happened';
COMMENT ON COLUMN anomaly.alert_events.held_until IS 'It waits until then: quiet hours, or a silence';
COMMENT ON COLUMN anomaly.alert_events.decided_at IS
    'When messages were made of it, or it was decided that nobody is told; empty: to be decided';
COMMENT ON COLUMN anomaly.alert_events.decision IS 'What was decided, and why';

CREATE TABLE anomaly.alert_messages (
    message_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    route         text NOT NULL,
    channel       text NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    attempts      integer NOT NULL DEFAULT 0,
    next_attempt  timestamptz NOT NULL DEFAULT clock_timestamp(),
    sent_at       timestamptz,
    given_up_at   timestamptz,
    dropped_at    timestamptz,
    error         text,
    CHECK (num_nonnulls(sent_at, given_up_at, dropped_at) <= 1)
);
CREATE INDEX alert_messages_due ON anomaly.alert_messages (next_attempt)
    WHERE sent_at IS NULL AND given_up_at IS NULL AND dropped_at IS NULL;
COMMENT ON TABLE anomaly.alert_messages IS 'One row per message to one channel';
COMMENT ON COLUMN anomaly.alert_messages.message_id IS 'Stands in the message: one that comes twice can be told by it';
COMMENT ON COLUMN anomaly.alert_messages.route IS 'Name of the route';
COMMENT ON COLUMN anomaly.alert_messages.channel IS 'Its service and a digest of its URL, which may hold a password';
COMMENT ON COLUMN anomaly.alert_messages.created_at IS 'When it was made';
COMMENT ON COLUMN anomaly.alert_messages.attempts IS 'How often it was tried; more than once when sent: the channel may have it twice';
COMMENT ON COLUMN anomaly.alert_messages.next_attempt IS 'When it is tried next; while it is being sent, when its sender counts as dead';
COMMENT ON COLUMN anomaly.alert_messages.sent_at IS 'When the channel took it; empty: not yet';
COMMENT ON COLUMN anomaly.alert_messages.given_up_at IS 'When it was given up; empty: it was not';
COMMENT ON COLUMN anomaly.alert_messages.dropped_at IS
    'When there was nothing left to say: the channel had heard it, or it was no longer so; empty: never';
COMMENT ON COLUMN anomaly.alert_messages.error IS 'Why the last attempt failed, or why it was dropped';

CREATE TABLE anomaly.alert_message_events (
    event_id   bigint NOT NULL REFERENCES anomaly.alert_events ON DELETE CASCADE,
    route      text NOT NULL,
    channel    text NOT NULL,
    message_id bigint NOT NULL REFERENCES anomaly.alert_messages,
    severity   text,
    is_over    boolean,
    PRIMARY KEY (event_id, channel)
);
CREATE INDEX alert_message_events_message ON anomaly.alert_message_events (message_id);
COMMENT ON TABLE anomaly.alert_message_events IS 'Which events a message tells: each once per channel';
COMMENT ON COLUMN anomaly.alert_message_events.event_id IS 'The event';
COMMENT ON COLUMN anomaly.alert_message_events.route IS 'The message''s route';
COMMENT ON COLUMN anomaly.alert_message_events.channel IS 'The message''s channel';
COMMENT ON COLUMN anomaly.alert_message_events.message_id IS 'The message';
COMMENT ON COLUMN anomaly.alert_message_events.severity IS
    'How severe the message said that it is; empty: it has not been sent, or left this out';
COMMENT ON COLUMN anomaly.alert_message_events.is_over IS
    'Whether the message said that it is over; empty: it has not been sent, or left this out';

CREATE TABLE anomaly.alert_silences (
    silence_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    machine_id  integer,
    site        text,
    starts_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    ends_at     timestamptz NOT NULL,
    note        text NOT NULL DEFAULT '',
    silenced_by text NOT NULL,
    CHECK (starts_at <= ends_at),
    CHECK (machine_id IS NULL OR site IS NULL)
);
COMMENT ON TABLE anomaly.alert_silences IS 'When nobody is told of a machine, of a site, or of anything';
COMMENT ON COLUMN anomaly.alert_silences.silence_id IS 'In the order in which they were set';
COMMENT ON COLUMN anomaly.alert_silences.machine_id IS 'The machine; empty: a site, or all';
COMMENT ON COLUMN anomaly.alert_silences.site IS 'The site; empty: a machine, or all';
COMMENT ON COLUMN anomaly.alert_silences.starts_at IS 'From when on';
COMMENT ON COLUMN anomaly.alert_silences.ends_at IS 'Until when; brought forward when it is ended early';
COMMENT ON COLUMN anomaly.alert_silences.note IS 'Why';
COMMENT ON COLUMN anomaly.alert_silences.silenced_by IS 'Who set it';

CREATE TABLE anomaly.checks (
    name       text PRIMARY KEY,
    checked_at timestamptz NOT NULL
);
COMMENT ON TABLE anomaly.checks IS 'When something that must run all the time did so last';
COMMENT ON COLUMN anomaly.checks.name IS 'What: freshness';
COMMENT ON COLUMN anomaly.checks.checked_at IS 'When';

INSERT INTO anomaly.locks (name) VALUES ('alerts');
