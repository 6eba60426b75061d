-- What the views of bi and their columns mean: docs/reference/tables-and-views.md is made from it.
--
-- A view's comment ends with the question that it answers. A column means the same in every view that has it, unless a line below says otherwise.

DO $$
DECLARE
    described record;
BEGIN
    FOR described IN
        SELECT c.relname, a.attname, meaning.text
          FROM pg_class c
          JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
          JOIN (VALUES
               ('machine_id', 'Number of the machine'),
               ('machine', 'Name of the machine'),
               ('site_id', 'Number of the site'),
               ('site', 'Site of the machine; empty: it has none'),
               ('utc_timestamp', 'Start of the reading''s interval, UTC'),
               ('reading', 'The reading as it is in the meter table, in the unit that it has there'),
               ('power_kw', 'Mean power since the previous reading, kW; empty where it is not known'),
               ('power_diff', 'Change of the reading per elapsed hour: kW for counters, else W/h'),
               ('anomaly_score', '0 to 1, higher is more abnormal; empty for meter faults'),
               ('threshold', 'Scores above it are anomalies'),
               ('anomaly', '1: anomaly, 0: normal'),
               ('reason', 'The reason in words'),
               ('quality', 'What is to be known about the reading, for example ok, gap or stuck'),
               ('origin', 'What wrote it: live (on schedule), late or backfill'),
               ('model_version', 'Number of the model version'),
               ('scored_at', 'When the verdict was written, UTC'),
               ('expected_kw', 'Usual power of the machine at that time, kW; empty where not known'),
               ('features_version', 'Which preprocessing and signals it was judged on'),
               ('energy_hours', 'Hours in which energy_kwh was used; more than an interval after a gap'),
               ('local_time', 'Start of the reading''s interval by the machine''s clock, without zone'),
               ('local_date', 'The day by the machine''s clock, without zone'),
               ('date_key', 'The day as a number, YYYYMMDD: key of bi.calendar'),
               ('week_start', 'Monday of its week'),
               ('currency', 'Currency of the price, ISO 4217; empty where no price is set'),
               ('incident_id', 'Number of the incident; it stays when the episode is computed again'),
               ('state', 'open, acknowledged, closed or silenced'),
               ('severity', 'notice, warning or critical'),
               ('started_at', 'Start of the interval in which the deviation began, UTC'),
               ('ended_at', 'End of the last abnormal interval, UTC; empty while it lasts'),
               ('local_start', 'started_at by the machine''s clock, without zone'),
               ('local_end', 'ended_at by the machine''s clock, without zone; empty while it lasts'),
               ('duration_hours', 'Hours from its start to its end, or to the end of its last abnormal interval so far'),
               ('acknowledged_by', 'Who acknowledged it first'),
               ('label', 'The newest label on its time: real, false_alarm, maintenance or meter_fault'),
               ('holiday', 'Name of the public holiday; empty: none, or no calendar is set'),
               ('active_from', 'In use from, UTC; empty: always was'),
               ('active_to', 'Retired at, UTC; empty: in use'),
               ('expected_kwh', 'Usual energy in it, kWh, of the readings that follow no gap, where the usual power is known'),
               ('excess_kwh', 'Energy beyond the usual in it, kWh, of the readings that follow no gap; negative where it was less'),
               ('cost', 'energy_kwh at the price of the site on that day, in currency; empty where no price is set'),
               ('mean_power_kw', 'Mean power in it, kW, weighted by time'),
               ('peak_power_kw', 'Highest power_kw of a reading in it, kW'),
               ('metered_hours', 'Hours in which energy_kwh was used; more than are in it after a gap, fewer where readings are missing'),
               ('power_hours', 'Hours of which the power is known: weight of mean_power_kw'),
               ('expected_hours', 'Hours of expected_kwh: divided by them it is the usual mean power'),
               ('anomalies', 'Readings in it with anomaly = 1'),
               ('meter_fault_readings', 'Readings in it that are faults of the meter'),
               ('anomaly_share', 'anomalies / readings, 0 to 1'),
               ('incident_minutes', 'Minutes of it in incidents of the machine; of one that lasts, to the end of its last abnormal interval so far. Where there is no verdict there is no row: bi.incidents has all'),
               ('meter_fault_minutes', 'Minutes of it in faults of the meter, counted in the same way'),
               ('price_per_kwh', 'Price of a kWh today, in currency; empty: none is set'),
               ('backfill_id', 'Number of the backfill; empty: none'),
               ('command', 'The DAG or the command'),
               ('dag_run_id', 'Airflow''s run_id; empty for the command line'),
               ('inserted', 'Verdicts that are new'),
               ('updated', 'Verdicts that changed'),
               ('retracted', 'Verdicts removed because their reading was deleted'),
               ('recorded_at', 'When it was decided, UTC'),
               ('recorded_by', 'Who decided it')
               ) AS meaning (name, text) ON meaning.name = a.attname
         WHERE c.relnamespace = 'bi'::regnamespace AND c.relkind = 'v'
    LOOP
        EXECUTE format('COMMENT ON COLUMN bi.%I.%I IS %L', described.relname, described.attname,
                       described.text);
    END LOOP;
END
$$;

COMMENT ON VIEW bi.verdicts IS 'Every current verdict: one row per reading of a machine. What did a machine draw at each time, and was it usual?';
COMMENT ON COLUMN bi.verdicts.energy_kwh IS 'Energy since the last reading that counts, kWh. Of a counter those of a span add up to what it counted, over gaps, roll-overs and meters that catch up; what was used in a gap longer than ANOMALY_MAX_GAP_DAYS or in the interval of a reset is not known. Of power, or energy per interval, those of a gap are missing';

COMMENT ON VIEW bi.anomalies IS 'The verdicts with anomaly = 1: one row per abnormal reading. Which readings were abnormal, and why?';
COMMENT ON COLUMN bi.anomalies.energy_kwh IS 'Energy since the last reading that counts, kWh';

COMMENT ON VIEW bi.latest IS 'The newest verdict of each machine, and how the machine is: one row per machine that has a verdict. What is the newest that is known of each machine?';
COMMENT ON COLUMN bi.latest.energy_kwh IS 'Energy since the last reading that counts, kWh';
COMMENT ON COLUMN bi.latest.state IS 'How the machine is, as in bi.machine_health';
COMMENT ON COLUMN bi.latest.open_incidents IS 'Incidents of the machine that last';
COMMENT ON COLUMN bi.latest.open_meter_faults IS 'Faults of its meter that last';

COMMENT ON VIEW bi.incidents IS 'Episodes of abnormal readings of a machine, and of meter faults, without withdrawn and merged ones: one row per incident. What happened, how long did it last, and what did it cost?';
COMMENT ON COLUMN bi.incidents.kind IS 'machine: the machine is abnormal; meter: its meter is at fault';
COMMENT ON COLUMN bi.incidents.peak_score IS 'Highest anomaly_score in it; empty for meter faults';
COMMENT ON COLUMN bi.incidents.excess_kwh IS 'Energy beyond the usual from its start to its end, kWh; negative where it was less, 0 where the usual is not known (excess_known)';
COMMENT ON COLUMN bi.incidents.readings IS 'Abnormal readings in it';
COMMENT ON COLUMN bi.incidents.origin IS 'What found it: live, late or backfill';
COMMENT ON COLUMN bi.incidents.opened_at IS 'When it was first written, UTC';
COMMENT ON COLUMN bi.incidents.updated_at IS 'When it was last changed, UTC';
COMMENT ON COLUMN bi.incidents.told_at IS 'End of its first abnormal interval, UTC: nobody could be told before';
COMMENT ON COLUMN bi.incidents.settled IS 'The machine has been abnormal for days: a new normal';
COMMENT ON COLUMN bi.incidents.acknowledged_by_all IS 'Everybody who acknowledged it, in order';
COMMENT ON COLUMN bi.incidents.local_date IS 'The day by the machine''s clock on which it began';
COMMENT ON COLUMN bi.incidents.week_start IS 'Monday of the week in which it began';
COMMENT ON COLUMN bi.incidents.excess_known IS 'Whether excess_kwh is known';
COMMENT ON COLUMN bi.incidents.excess_cost IS 'excess_kwh at the price of the site on the day on which it began, in currency; empty where no price is set';

COMMENT ON VIEW bi.meter_faults IS 'Faults of meters: the incidents of kind meter, one row per fault. Which meters need somebody to look at them?';
COMMENT ON COLUMN bi.meter_faults.readings IS 'Readings in it; none where there were none';
COMMENT ON COLUMN bi.meter_faults.local_date IS 'The day by the machine''s clock on which it began';
COMMENT ON COLUMN bi.meter_faults.week_start IS 'Monday of the week in which it began';

COMMENT ON VIEW bi.machine_health IS 'How each machine is now: one row per machine. How is every machine now?';
COMMENT ON COLUMN bi.machine_health.state IS 'normal; abnormal (an incident lasts); meter fault; silent (its newest verdict is older than ANOMALY_STALE_AFTER_HOURS); learning (no model knows it yet); no verdict yet; retired';
COMMENT ON COLUMN bi.machine_health.since IS 'Since when it is abnormal, at fault or silent, UTC; empty otherwise';
COMMENT ON COLUMN bi.machine_health.local_since IS 'The same by the machine''s clock, without zone';
COMMENT ON COLUMN bi.machine_health.last_reading_at IS 'Start of the interval of its newest reading, UTC';
COMMENT ON COLUMN bi.machine_health.local_last_reading IS 'The same by the machine''s clock, without zone';
COMMENT ON COLUMN bi.machine_health.power_kw IS 'Power of its newest reading, kW';
COMMENT ON COLUMN bi.machine_health.expected_kw IS 'Its usual power at that time, kW';
COMMENT ON COLUMN bi.machine_health.excess_kw IS 'power_kw - expected_kw, kW';
COMMENT ON COLUMN bi.machine_health.open_incidents IS 'Incidents of the machine that last';
COMMENT ON COLUMN bi.machine_health.open_meter_faults IS 'Faults of its meter that last';
COMMENT ON COLUMN bi.machine_health.incident_id IS 'The incident behind its state; empty: none';
COMMENT ON COLUMN bi.machine_health.severity IS 'Severity of that incident: notice, warning or critical';
COMMENT ON COLUMN bi.machine_health.reason IS 'Reason of that incident in words';
COMMENT ON COLUMN bi.machine_health.acknowledged_by IS 'Who acknowledged that incident first';

COMMENT ON VIEW bi.labels IS 'What people said about a machine and a range of time: one row per label that counts. What did people say that it was?';
COMMENT ON COLUMN bi.labels.label_id IS 'Number of the label';
COMMENT ON COLUMN bi.labels.starts_at IS 'Start of the range, UTC; empty: without a start';
COMMENT ON COLUMN bi.labels.ends_at IS 'End of the range, UTC, not included; empty: without an end';
COMMENT ON COLUMN bi.labels.label IS 'real, false_alarm, maintenance or meter_fault';
COMMENT ON COLUMN bi.labels.note IS 'What else they said';
COMMENT ON COLUMN bi.labels.labelled_by IS 'Who said it';
COMMENT ON COLUMN bi.labels.labelled_at IS 'When they said it, UTC';

COMMENT ON VIEW bi.machines IS 'Dimension: one row per machine. Which machines are there, and where?';
COMMENT ON COLUMN bi.machines.time_zone IS 'IANA zone of its working day';
COMMENT ON COLUMN bi.machines.max_power_kw IS 'Most that it can draw, kW; empty: not known';
COMMENT ON COLUMN bi.machines.alert_budget IS 'Bearable incidents per week of its own; empty: that of the model';
COMMENT ON COLUMN bi.machines.holidays IS 'Its calendar of public holidays, for example DE-BW; empty: that of the deployment';
COMMENT ON COLUMN bi.machines.source_key IS 'Column or id in the meter table';

COMMENT ON VIEW bi.sites IS 'Dimension: one row per site that a machine has or had. Which sites are there, and what does energy cost there today?';
COMMENT ON COLUMN bi.sites.machines IS 'Machines that it has';
COMMENT ON COLUMN bi.sites.site IS 'Name of the site; empty: machines without a site';

COMMENT ON VIEW bi.calendar IS 'Dimension: one row per day, from the year of the first verdict to the end of next year. Which days are weekends, holidays, the same week?';
COMMENT ON COLUMN bi.calendar.date IS 'The day';
COMMENT ON COLUMN bi.calendar.year IS 'Year';
COMMENT ON COLUMN bi.calendar.quarter IS 'Quarter, 1 to 4';
COMMENT ON COLUMN bi.calendar.month IS 'Month, 1 to 12';
COMMENT ON COLUMN bi.calendar.month_name IS 'Name of the month, in English';
COMMENT ON COLUMN bi.calendar.iso_year IS 'Year of the ISO week';
COMMENT ON COLUMN bi.calendar.iso_week IS 'ISO week, 1 to 53';
COMMENT ON COLUMN bi.calendar.weekday IS '1: Monday, 7: Sunday';
COMMENT ON COLUMN bi.calendar.weekday_name IS 'Name of the weekday, in English';
COMMENT ON COLUMN bi.calendar.is_weekend IS 'Saturday or Sunday';
COMMENT ON COLUMN bi.calendar.holiday IS 'Name of the public holiday by the deployment''s calendar; empty: none';
COMMENT ON COLUMN bi.calendar.date_key IS 'The day as a number, YYYYMMDD';

COMMENT ON VIEW bi.machine_hours IS 'Energy, cost, anomalies and minutes in incident: one row per machine and hour of its clock with a verdict. When in the day, and in which shift, is energy used?';
COMMENT ON COLUMN bi.machine_hours.hour_start IS 'Start of the hour, UTC';
COMMENT ON COLUMN bi.machine_hours.local_hour IS 'Start of the hour by the machine''s clock, without zone; the hour that a clock shows twice stands twice';
COMMENT ON COLUMN bi.machine_hours.hour IS 'Hour of the day by the machine''s clock, 0 to 23';
COMMENT ON COLUMN bi.machine_hours.shift IS 'Shift in which the hour begins; empty: no shift is set';
COMMENT ON COLUMN bi.machine_hours.energy_kwh IS 'Energy of the readings in it, kWh; after a gap also that of the gap';
COMMENT ON COLUMN bi.machine_hours.readings IS 'Readings in it';

COMMENT ON VIEW bi.machine_days IS 'Energy, cost, anomalies and minutes in incident: one row per machine and local day with a verdict. How many kWh, at what cost, on each day, and how long was the machine in an incident?';
COMMENT ON COLUMN bi.machine_days.day_hours IS 'Hours that the day has: 23 or 25 when clocks are changed';
COMMENT ON COLUMN bi.machine_days.energy_kwh IS 'Energy of the readings in it, kWh; after a gap also that of the gap';
COMMENT ON COLUMN bi.machine_days.readings IS 'Readings in it';
COMMENT ON COLUMN bi.machine_days.holiday IS 'Name of the public holiday by the machine''s calendar; empty: none';

COMMENT ON VIEW bi.model_versions IS 'Dimension: one row per trained model version. Which models have been trained, when and on what?';
COMMENT ON COLUMN bi.model_versions.detector IS 'Which detector it is';
COMMENT ON COLUMN bi.model_versions.trained_from IS 'Start of the training window, UTC';
COMMENT ON COLUMN bi.model_versions.trained_to IS 'End of the training window, UTC, not included';
COMMENT ON COLUMN bi.model_versions.readings IS 'Readings it was trained on';
COMMENT ON COLUMN bi.model_versions.status IS 'registered, refused, or retired (its files are removed)';
COMMENT ON COLUMN bi.model_versions.registered_at IS 'When it was registered, UTC';
COMMENT ON COLUMN bi.model_versions.registered_by IS 'Who or what trained it';
COMMENT ON COLUMN bi.model_versions.judges_new_readings IS 'Whether it judges new readings';

COMMENT ON VIEW bi.models_in_force IS 'Which model version judges readings of which time: one row per span, without overlaps. Which model judged when?';
COMMENT ON COLUMN bi.models_in_force.effective_from IS 'First reading time that it judges, UTC; empty: from the beginning';
COMMENT ON COLUMN bi.models_in_force.effective_to IS 'End of its time, UTC, not included; empty: still in force';
COMMENT ON COLUMN bi.models_in_force.decision IS 'promotion; rollback; range: a past range judged by another version; kept: what a later decision left of a span';
COMMENT ON COLUMN bi.models_in_force.reason IS 'Why';

COMMENT ON VIEW bi.alerts_weekly IS 'Alerts against their budget, and their precision: one row per machine and week of its clock with a verdict. Are there more alerts than is bearable, and how many of them were real?';
COMMENT ON COLUMN bi.alerts_weekly.alerts IS 'Incidents of the machine that began in it, without those silenced by maintenance';
COMMENT ON COLUMN bi.alerts_weekly.budget IS 'Bearable alerts per week: the machine''s own, else that of the model in force';
COMMENT ON COLUMN bi.alerts_weekly.over_budget IS 'alerts - budget; negative: fewer than bearable';
COMMENT ON COLUMN bi.alerts_weekly.real_alerts IS 'Alerts that people labelled real';
COMMENT ON COLUMN bi.alerts_weekly.false_alarms IS 'Alerts that people labelled false_alarm';
COMMENT ON COLUMN bi.alerts_weekly.unlabelled IS 'Alerts without such a label';
COMMENT ON COLUMN bi.alerts_weekly.precision IS 'real_alerts / (real_alerts + false_alarms), 0 to 1; empty: nothing is labelled';

COMMENT ON VIEW bi.scoring_runs IS 'The ledger: one row per published window. What was scored when, and by what?';
COMMENT ON COLUMN bi.scoring_runs.run_id IS 'Number of the publication';
COMMENT ON COLUMN bi.scoring_runs.window_start IS 'Start of the window, UTC';
COMMENT ON COLUMN bi.scoring_runs.window_end IS 'End of the window, UTC, not included';
COMMENT ON COLUMN bi.scoring_runs.published_at IS 'When it was committed, UTC';
COMMENT ON COLUMN bi.scoring_runs.readings IS 'Finite readings found in the window';
COMMENT ON COLUMN bi.scoring_runs.missing IS 'Empty, NaN or infinite readings: they get no verdict';
COMMENT ON COLUMN bi.scoring_runs.duplicates IS 'Readings left out because another had their machine and time';
COMMENT ON COLUMN bi.scoring_runs.scored IS 'Verdicts computed';
COMMENT ON COLUMN bi.scoring_runs.late IS 'Those of inserted whose reading came after its interval had been scored';
COMMENT ON COLUMN bi.scoring_runs.anomalies IS 'Verdicts with anomaly = 1 among those';

COMMENT ON VIEW bi.backfills IS 'Backfills: one row per backfill. Which past ranges were scored again, and what did that change?';
COMMENT ON COLUMN bi.backfills.starts_at IS 'Start of the range, UTC';
COMMENT ON COLUMN bi.backfills.ends_at IS 'End of the range, UTC, not included';
COMMENT ON COLUMN bi.backfills.machines IS 'How many machines were asked for; empty: all';
COMMENT ON COLUMN bi.backfills.model_version IS 'The version that was put in force for the range; empty: those that were';
COMMENT ON COLUMN bi.backfills.mode IS 'missing: readings without a verdict; changed: those, and verdicts that are out of date; everything';
COMMENT ON COLUMN bi.backfills.started_at IS 'When it began, UTC';
COMMENT ON COLUMN bi.backfills.finished_at IS 'When it ended, UTC; empty: it is running, or was stopped';
COMMENT ON COLUMN bi.backfills.is_finished IS 'Whether it has ended';
COMMENT ON COLUMN bi.backfills.readings IS 'Readings of the windows that it has published';

COMMENT ON VIEW bi.pipeline_health IS 'How the pipeline is now: one row. How fresh is all this?';
COMMENT ON COLUMN bi.pipeline_health.newest_reading_at IS 'End of the newest interval with a verdict, UTC';
COMMENT ON COLUMN bi.pipeline_health.freshness_minutes IS 'Minutes since then';
COMMENT ON COLUMN bi.pipeline_health.scored_to IS 'End of the time that scheduled runs have scored, UTC';
COMMENT ON COLUMN bi.pipeline_health.lag_minutes IS 'Minutes since then';
COMMENT ON COLUMN bi.pipeline_health.last_run_at IS 'When a window was last published, UTC';
COMMENT ON COLUMN bi.pipeline_health.last_run_command IS 'By which DAG or command';
COMMENT ON COLUMN bi.pipeline_health.machines IS 'Machines in use';
COMMENT ON COLUMN bi.pipeline_health.machines_silent IS 'Machines without readings';
COMMENT ON COLUMN bi.pipeline_health.readings_24h IS 'Readings that got their first verdict in the last 24 hours';
COMMENT ON COLUMN bi.pipeline_health.late_24h IS 'Those of them that came after their interval had been scored';
COMMENT ON COLUMN bi.pipeline_health.repaired_24h IS 'Verdicts replaced or removed in the last 24 hours';
COMMENT ON COLUMN bi.pipeline_health.intervals_without_verdict_24h IS 'Intervals in the 24 whole hours before scored_to that have no verdict, of machines in use, each from its first verdict on: the reading was empty, has not come, or was not judged';
COMMENT ON COLUMN bi.pipeline_health.anomalies_24h IS 'Abnormal readings of the last 24 hours';
COMMENT ON COLUMN bi.pipeline_health.open_incidents IS 'Incidents that are open or acknowledged';
COMMENT ON COLUMN bi.pipeline_health.model_version IS 'The version that judges new readings; empty: none does';
COMMENT ON COLUMN bi.pipeline_health.backfills_running IS 'Backfills that have done something in the last 24 hours and are not finished';
