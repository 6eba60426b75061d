-- What each role may do; run by `anomaly migrate` as anomaly_owner, safe to repeat.

GRANT USAGE ON SCHEMA anomaly TO anomaly_source, anomaly_scorer, anomaly_trainer, anomaly_api;
GRANT SELECT ON anomaly.meter_readings TO anomaly_source;

-- The meter table is read by a function alone. These rights are the owner's of the function to give,
-- of which anomaly_owner is a member.
GRANT USAGE ON SCHEMA anomaly TO anomaly_reader;
GRANT SELECT (machine_id, source_key) ON anomaly.machines TO anomaly_reader;
GRANT USAGE ON SCHEMA anomaly_reading TO anomaly_scorer, anomaly_trainer, anomaly_api;
REVOKE ALL ON FUNCTION anomaly_reading.read_source(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION anomaly_reading.read_source(text)
    TO anomaly_scorer, anomaly_trainer, anomaly_api;

-- To lock a row, a role needs the right to update a column of it. BI log-ins do not have it, so
-- only these roles can block a publication.
GRANT SELECT, UPDATE (lockable) ON anomaly.locks TO anomaly_scorer, anomaly_trainer;
GRANT SELECT ON anomaly.schema_migrations TO anomaly_scorer, anomaly_trainer;
REVOKE ALL ON anomaly.schema_migrations FROM PUBLIC;

-- The scorer writes verdicts, their history, incidents and the ledger, and adds machines.
GRANT SELECT, INSERT, UPDATE, DELETE ON anomaly.anomaly_results TO anomaly_scorer;
GRANT SELECT, INSERT ON anomaly.anomaly_results_history, anomaly.scoring_runs TO anomaly_scorer;
GRANT SELECT ON anomaly.deleted_scoring_runs TO anomaly_scorer;
GRANT UPDATE (changes) ON anomaly.scoring_runs TO anomaly_scorer;
GRANT SELECT, INSERT ON anomaly.backfills, anomaly.backfill_pieces TO anomaly_scorer;
GRANT DELETE ON anomaly.backfill_pieces TO anomaly_scorer;
GRANT UPDATE (report, finished_at) ON anomaly.backfills TO anomaly_scorer;
GRANT SELECT, INSERT ON anomaly.machines TO anomaly_scorer;
GRANT SELECT ON anomaly.model_versions, anomaly.model_in_force TO anomaly_scorer;
GRANT SELECT, INSERT ON anomaly.labels, anomaly.acknowledgements TO anomaly_scorer;
GRANT UPDATE (withdrawn_at, withdrawn_by, withdrawn_as) ON anomaly.labels TO anomaly_scorer;
GRANT USAGE ON SEQUENCE anomaly.labels_label_id_seq TO anomaly_scorer;
GRANT SELECT, INSERT, UPDATE ON anomaly.incidents TO anomaly_scorer;
GRANT USAGE ON SEQUENCE anomaly.fencing_token TO anomaly_scorer;
GRANT EXECUTE ON FUNCTION anomaly.ensure_partitions(timestamptz, timestamptz) TO anomaly_scorer;
GRANT EXECUTE ON FUNCTION anomaly.anomaly_results_as_of(timestamptz) TO anomaly_scorer;
GRANT EXECUTE ON FUNCTION anomaly.drop_results_before(timestamptz),
    anomaly.delete_history_before(timestamptz, integer),
    anomaly.delete_ledger_before(timestamptz, integer)
    TO anomaly_scorer;

-- The trainer registers versions and writes the version map. It only reads verdicts.
GRANT SELECT ON anomaly.anomaly_results, anomaly.scoring_runs, anomaly.incidents, anomaly.labels
    TO anomaly_trainer;
GRANT SELECT, INSERT ON anomaly.machines, anomaly.model_versions, anomaly.model_in_force
    TO anomaly_trainer;
GRANT UPDATE (status, metrics) ON anomaly.model_versions TO anomaly_trainer;
GRANT UPDATE (superseded_at, unfinished) ON anomaly.model_in_force TO anomaly_trainer;
GRANT SELECT, INSERT, UPDATE, DELETE ON anomaly.model_drafts TO anomaly_trainer;
GRANT EXECUTE ON FUNCTION anomaly.this_database() TO anomaly_trainer;
GRANT SELECT ON anomaly.anomaly_results_history TO anomaly_trainer;

-- Sums are written by the functions alone; what people say of sites, by whoever sets machines.
GRANT EXECUTE ON FUNCTION
    anomaly.refresh_sums(integer[], timestamptz[], timestamptz[]) TO anomaly_scorer;
GRANT SELECT ON anomaly.sites, anomaly.energy_prices, anomaly.price_periods, anomaly.shifts,
    anomaly.machine_hours, anomaly.machine_days TO anomaly_scorer;
GRANT INSERT ON anomaly.dropped_results TO anomaly_scorer;
GRANT SELECT, INSERT, DELETE ON anomaly.holidays TO anomaly_trainer;

GRANT SELECT ON anomaly.alerts TO anomaly_scorer, anomaly_trainer;
GRANT SELECT ON anomaly.incident_facts, anomaly.alert_facts TO anomaly_scorer;

-- Events are written with what they are about; a sender writes the rest.
GRANT SELECT, INSERT ON anomaly.alert_events, anomaly.alert_messages, anomaly.alert_message_events,
    anomaly.alert_silences, anomaly.checks TO anomaly_scorer;
GRANT UPDATE (held_until, decided_at, decision) ON anomaly.alert_events TO anomaly_scorer;
GRANT UPDATE (attempts, next_attempt, sent_at, given_up_at, dropped_at, error, channel)
    ON anomaly.alert_messages TO anomaly_scorer;
GRANT UPDATE (channel, message_id, severity, is_over) ON anomaly.alert_message_events
    TO anomaly_scorer;
GRANT DELETE ON anomaly.alert_events, anomaly.alert_messages TO anomaly_scorer; -- by `anomaly purge`
GRANT UPDATE (ends_at) ON anomaly.alert_silences TO anomaly_scorer;
GRANT UPDATE (checked_at) ON anomaly.checks TO anomaly_scorer;
GRANT SELECT, INSERT ON anomaly.alert_events TO anomaly_trainer;

-- The API only reads: what it judges by, its keys, and what BI tools see.
GRANT SELECT ON anomaly.machines, anomaly.model_versions, anomaly.model_in_force,
    anomaly.anomaly_results, anomaly.scoring_runs, anomaly.api_keys TO anomaly_api;
GRANT USAGE ON SCHEMA bi TO anomaly_api;
GRANT SELECT ON ALL TABLES IN SCHEMA bi TO anomaly_api;
-- Keys are made and revoked by the command line.
GRANT SELECT, INSERT ON anomaly.api_keys TO anomaly_scorer;
GRANT UPDATE (revoked_at, revoked_by) ON anomaly.api_keys TO anomaly_scorer;

-- BI tools see only the views.
GRANT USAGE ON SCHEMA bi TO anomaly_bi;
GRANT SELECT ON ALL TABLES IN SCHEMA bi TO anomaly_bi;
GRANT EXECUTE ON FUNCTION anomaly.day_start(date, text) TO anomaly_bi, anomaly_api; -- views call it
