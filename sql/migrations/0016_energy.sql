-- Energy of each reading, sites with prices and shifts, holidays, and sums per machine and local
-- hour and day: what the views of the schema bi are made of.
--
-- Verdicts that are there have no energy, and their hours no sums, until they are scored again: what
-- a verdict is made of has changed (features_version 2). So a large table is migrated at once.

-- Energy -------------------------------------------------------------------

ALTER TABLE anomaly.anomaly_results
    ADD COLUMN energy_kwh double precision, ADD COLUMN energy_hours double precision;
ALTER TABLE anomaly.anomaly_results_history
    ADD COLUMN energy_kwh double precision, ADD COLUMN energy_hours double precision;
COMMENT ON COLUMN anomaly.anomaly_results.energy_kwh IS
    'Energy metered since the last reading that counts, kWh: those of a span add up to what was used in it. Empty where nothing is known';
COMMENT ON COLUMN anomaly.anomaly_results.energy_hours IS
    'Hours in which energy_kwh was used; empty where that is not known';
COMMENT ON COLUMN anomaly.anomaly_results_history.energy_kwh IS
    'Energy metered since the last reading that counts, kWh';
COMMENT ON COLUMN anomaly.anomaly_results_history.energy_hours IS
    'Hours in which energy_kwh was used; empty where that is not known';

-- The ledger -----------------------------------------------------------------

ALTER TABLE anomaly.scoring_runs
    ADD COLUMN late bigint NOT NULL DEFAULT 0, ADD COLUMN meter_interval interval,
    ADD COLUMN stale_after interval;
UPDATE anomaly.scoring_runs SET late = inserted WHERE origin = 'late';
COMMENT ON COLUMN anomaly.scoring_runs.late IS
    'Those of inserted whose reading came after its interval had been covered by a live run';
COMMENT ON COLUMN anomaly.scoring_runs.meter_interval IS
    'How long an interval of the meters was then; empty: nobody wrote it down yet';
COMMENT ON COLUMN anomaly.scoring_runs.stale_after IS
    'After how long without a reading a machine was silent then; empty: never, or nobody wrote it down yet';

CREATE VIEW anomaly.metering AS
SELECT coalesce(newest.meter_interval, interval '0') AS meter_interval, newest.stale_after
  FROM (VALUES (1)) AS one
  LEFT JOIN (SELECT r.meter_interval, r.stale_after
               FROM anomaly.scoring_runs r
              WHERE r.meter_interval IS NOT NULL
              ORDER BY r.run_id DESC
              LIMIT 1) AS newest ON true;
COMMENT ON VIEW anomaly.metering IS 'One row: settings of the meters, as the newest run had them';
COMMENT ON COLUMN anomaly.metering.meter_interval IS 'How long an interval lasts; 0 before the first run';
COMMENT ON COLUMN anomaly.metering.stale_after IS
    'After how long without a reading a machine is silent; empty: never';

DROP FUNCTION anomaly.anomaly_results_as_of(timestamptz);
CREATE FUNCTION anomaly.anomaly_results_as_of(moment timestamptz)
RETURNS TABLE (
    machine_id integer, utc_timestamp timestamptz, reading double precision,
    power_kw double precision, power_diff double precision,
    anomaly_score double precision, threshold double precision, anomaly smallint,
    reason text, quality anomaly.reading_quality, origin anomaly.run_origin,
    model_version integer, run_id bigint, scored_at timestamptz, expected_kw double precision,
    features_version smallint, energy_kwh double precision, energy_hours double precision
)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT r.machine_id, r.utc_timestamp, r.reading, r.power_kw, r.power_diff, r.anomaly_score,
           r.threshold, r.anomaly, r.reason, r.quality, r.origin, r.model_version, r.run_id,
           r.scored_at, r.expected_kw, r.features_version, r.energy_kwh, r.energy_hours
      FROM anomaly.anomaly_results r
     WHERE r.scored_at <= moment
     UNION ALL
    SELECT h.machine_id, h.utc_timestamp, h.reading, h.power_kw, h.power_diff, h.anomaly_score,
           h.threshold, h.anomaly, h.reason, h.quality, h.origin, h.model_version, h.run_id,
           h.scored_at, h.expected_kw, h.features_version, h.energy_kwh, h.energy_hours
      FROM anomaly.anomaly_results_history h
     WHERE h.scored_at <= moment AND moment < h.superseded_at
$$;
COMMENT ON FUNCTION anomaly.anomaly_results_as_of(timestamptz) IS
    'The results table as it stood at a moment: answers "what did operators see then?"';
REVOKE ALL ON FUNCTION anomaly.anomaly_results_as_of(timestamptz) FROM PUBLIC;

-- Sites ---------------------------------------------------------------------

CREATE TABLE anomaly.sites (
    site_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name    text NOT NULL UNIQUE
);
COMMENT ON TABLE anomaly.sites IS 'A number for each site that a machine names; it stays';
COMMENT ON COLUMN anomaly.sites.site_id IS 'In the order in which they were first named';
COMMENT ON COLUMN anomaly.sites.name IS 'As machines name it; empty: machines without a site';

CREATE TABLE anomaly.energy_prices (
    site          text NOT NULL,
    valid_from    date NOT NULL,
    price_per_kwh double precision NOT NULL
                  CHECK (price_per_kwh BETWEEN -1000 AND 1000),
    currency      text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    PRIMARY KEY (site, valid_from)
);
COMMENT ON TABLE anomaly.energy_prices IS 'What energy costs at a site from a local day on';
COMMENT ON COLUMN anomaly.energy_prices.site IS 'The site; empty: every site without a price of its own on that day';
COMMENT ON COLUMN anomaly.energy_prices.valid_from IS 'First local day';
COMMENT ON COLUMN anomaly.energy_prices.price_per_kwh IS 'Price of a kWh';
COMMENT ON COLUMN anomaly.energy_prices.currency IS 'ISO 4217, as EUR';

CREATE TABLE anomaly.shifts (
    site   text NOT NULL,
    name   text NOT NULL CHECK (name <> ''),
    starts time NOT NULL,
    ends   time NOT NULL,
    PRIMARY KEY (site, name)
);
COMMENT ON TABLE anomaly.shifts IS 'Shifts of a site by the local clock';
COMMENT ON COLUMN anomaly.shifts.site IS 'The site; empty: every site without shifts of its own';
COMMENT ON COLUMN anomaly.shifts.name IS 'What it is called';
COMMENT ON COLUMN anomaly.shifts.starts IS 'When it starts';
COMMENT ON COLUMN anomaly.shifts.ends IS 'When it ends, not included; before starts: on the next day';

CREATE TABLE anomaly.holidays (
    calendar text NOT NULL,
    day      date NOT NULL,
    name     text NOT NULL,
    PRIMARY KEY (calendar, day)
);
COMMENT ON TABLE anomaly.holidays IS 'Public holidays, as training knows them; written by each training';
COMMENT ON COLUMN anomaly.holidays.calendar IS 'As machines name it, for example DE-BW; empty: ANOMALY_HOLIDAYS';
COMMENT ON COLUMN anomaly.holidays.day IS 'The local day';
COMMENT ON COLUMN anomaly.holidays.name IS 'Its name';

-- Where clocks go back from 1 to 0, midnight is there twice, and the day begins with the first.
CREATE FUNCTION anomaly.day_start(day date, zone text)
RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE WHEN ((day::timestamp AT TIME ZONE zone - interval '1 hour') AT TIME ZONE zone)::date
                 >= day
            THEN day::timestamp AT TIME ZONE zone - interval '1 hour'
            ELSE day::timestamp AT TIME ZONE zone
       END;
COMMENT ON FUNCTION anomaly.day_start(date, text) IS 'When a local day begins';
REVOKE ALL ON FUNCTION anomaly.day_start(date, text) FROM PUBLIC;

CREATE FUNCTION anomaly.clock_or_utc(zone text)
RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM now() AT TIME ZONE zone;
    RETURN zone;
EXCEPTION WHEN invalid_parameter_value THEN
    RETURN 'UTC';
END
$$;
COMMENT ON FUNCTION anomaly.clock_or_utc(text) IS 'A time zone if Postgres knows it, else UTC';

ALTER TABLE anomaly.machines ADD COLUMN clock text NOT NULL DEFAULT 'UTC';
COMMENT ON COLUMN anomaly.machines.clock IS
    'The zone of its local hours and days in bi: time_zone if Postgres knows it, else UTC. Kept by a trigger';
UPDATE anomaly.machines SET clock = anomaly.clock_or_utc(time_zone);
INSERT INTO anomaly.sites (name) SELECT DISTINCT site FROM anomaly.machines ORDER BY site;

-- Sums per local hour and day --------------------------------------------------

CREATE TABLE anomaly.machine_hours (
    machine_id     integer NOT NULL,
    hour_start     timestamptz NOT NULL,
    local_date     date NOT NULL,
    readings       integer NOT NULL,
    anomalies      integer NOT NULL,
    meter_faults   integer NOT NULL,
    energy_kwh     double precision,
    energy_hours   double precision,
    mean_power_kw  double precision,
    power_hours    double precision,
    peak_power_kw  double precision,
    expected_kwh   double precision,
    expected_hours double precision,
    excess_kwh     double precision,
    PRIMARY KEY (machine_id, hour_start)
) WITH (fillfactor = 80);
CREATE INDEX machine_hours_when ON anomaly.machine_hours
    USING brin (hour_start, local_date) WITH (pages_per_range = 16, autosummarize = on);

CREATE TABLE anomaly.machine_days (
    machine_id     integer NOT NULL,
    local_date     date NOT NULL,
    readings       integer NOT NULL,
    anomalies      integer NOT NULL,
    meter_faults   integer NOT NULL,
    energy_kwh     double precision,
    energy_hours   double precision,
    mean_power_kw  double precision,
    power_hours    double precision,
    peak_power_kw  double precision,
    expected_kwh   double precision,
    expected_hours double precision,
    excess_kwh     double precision,
    PRIMARY KEY (machine_id, local_date)
) WITH (fillfactor = 80);
CREATE INDEX machine_days_local_date ON anomaly.machine_days (local_date);

DO $$
DECLARE
    part text;
BEGIN
    FOREACH part IN ARRAY ARRAY['machine_hours', 'machine_days'] LOOP
        EXECUTE format($comments$
            COMMENT ON COLUMN anomaly.%1$I.machine_id IS 'The machine';
            COMMENT ON COLUMN anomaly.%1$I.local_date IS 'The day by its clock';
            COMMENT ON COLUMN anomaly.%1$I.readings IS 'Verdicts in it';
            COMMENT ON COLUMN anomaly.%1$I.anomalies IS 'Those with anomaly = 1';
            COMMENT ON COLUMN anomaly.%1$I.meter_faults IS 'Those that are faults of the meter';
            COMMENT ON COLUMN anomaly.%1$I.energy_kwh IS 'Sum of energy_kwh';
            COMMENT ON COLUMN anomaly.%1$I.energy_hours IS 'Sum of energy_hours';
            COMMENT ON COLUMN anomaly.%1$I.mean_power_kw IS 'Mean of power_kw, weighted by energy_hours';
            COMMENT ON COLUMN anomaly.%1$I.power_hours IS 'Hours of which the power is known';
            COMMENT ON COLUMN anomaly.%1$I.peak_power_kw IS 'Highest power_kw';
            COMMENT ON COLUMN anomaly.%1$I.expected_kwh IS 'Usual energy of the readings that follow no gap, where the usual power is known';
            COMMENT ON COLUMN anomaly.%1$I.expected_hours IS 'Hours of expected_kwh';
            COMMENT ON COLUMN anomaly.%1$I.excess_kwh IS 'Energy beyond the usual of the readings that follow no gap, where both are known';
        $comments$, part);
    END LOOP;
END
$$;
COMMENT ON TABLE anomaly.machine_hours IS
    'Sums of the verdicts of a machine and hour of its clock, written with them; they stay when old verdicts are dropped';
COMMENT ON COLUMN anomaly.machine_hours.hour_start IS 'Start of the hour, by the machine''s clock';
COMMENT ON TABLE anomaly.machine_days IS
    'The same per machine and local day';

-- Verdicts that were dropped are in the sums for ever: those that are left of their hours are not.
CREATE TABLE anomaly.dropped_results (
    dropped_to timestamptz NOT NULL,
    dropped_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE anomaly.dropped_results IS 'Up to when months of results have been dropped';
COMMENT ON COLUMN anomaly.dropped_results.dropped_to IS 'End of the months, not included';
COMMENT ON COLUMN anomaly.dropped_results.dropped_at IS 'When they were dropped';

CREATE FUNCTION anomaly.refresh_sums(
    machines integer[], firsts timestamptz[], lasts timestamptz[]
)
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET work_mem = '64MB' -- a million verdicts are summed without a file
AS $$
DECLARE
    -- An hour of any clock lies within these; they tell the planner which months are read.
    earliest timestamptz := (SELECT min(t) - interval '2 hours' FROM unnest(firsts) t);
    latest   timestamptz := (SELECT max(t) + interval '2 hours' FROM unnest(lasts) t);
    kept_from timestamptz := coalesce((SELECT max(dropped_to) FROM anomaly.dropped_results),
                                      '-infinity');
BEGIN
    WITH asked AS MATERIALIZED (
        SELECT m.machine_id, m.clock, date_trunc('hour', a.first_at, m.clock) AS first_hour,
               date_trunc('hour', a.last_at, m.clock) AS last_hour
          FROM unnest(machines, firsts, lasts) AS a (machine_id, first_at, last_at)
          JOIN anomaly.machines m ON m.machine_id = a.machine_id
    ), sums AS (
        SELECT r.machine_id, date_trunc('hour', r.utc_timestamp, a.clock) AS hour_start,
               count(*) AS readings, sum(r.anomaly) AS anomalies,
               count(*) FILTER (WHERE r.quality >= 'stuck') AS meter_faults,
               sum(r.energy_kwh) AS energy_kwh, sum(r.energy_hours) AS energy_hours,
               sum(r.power_kw * r.energy_hours)
                   / nullif(sum(r.energy_hours) FILTER (WHERE r.power_kw IS NOT NULL), 0)
                   AS mean_power_kw,
               sum(r.energy_hours) FILTER (WHERE r.power_kw IS NOT NULL) AS power_hours,
               max(r.power_kw) AS peak_power_kw,
               -- After a gap, what is usual at its end says nothing of all of it.
               sum(r.expected_kw * r.energy_hours) FILTER (WHERE r.quality <> 'gap')
                   AS expected_kwh,
               sum(r.energy_hours)
                   FILTER (WHERE r.expected_kw IS NOT NULL AND r.quality <> 'gap')
                   AS expected_hours,
               sum(r.energy_kwh - r.expected_kw * r.energy_hours)
                   FILTER (WHERE r.power_kw IS NOT NULL AND r.quality <> 'gap') AS excess_kwh
          FROM asked a
          JOIN anomaly.anomaly_results r
            ON r.machine_id = a.machine_id
           AND r.utc_timestamp >= a.first_hour
           AND r.utc_timestamp < a.last_hour + interval '1 hour'
         WHERE r.utc_timestamp >= earliest AND r.utc_timestamp < latest
         GROUP BY 1, 2
    ), now_so AS MATERIALIZED (
        SELECT s.machine_id, s.hour_start, (s.hour_start AT TIME ZONE a.clock)::date AS local_date,
               s.readings, s.anomalies, s.meter_faults, s.energy_kwh, s.energy_hours,
               s.mean_power_kw, s.power_hours, s.peak_power_kw, s.expected_kwh, s.expected_hours,
               s.excess_kwh
          FROM sums s
          JOIN asked a ON a.machine_id = s.machine_id
         -- Where clocks change by half an hour, two hours overlap: others are not all read.
         WHERE s.hour_start BETWEEN a.first_hour AND a.last_hour
    ), gone AS (
        DELETE FROM anomaly.machine_hours h
         USING asked a
         WHERE h.machine_id = a.machine_id
           AND h.hour_start BETWEEN a.first_hour AND a.last_hour AND h.hour_start >= kept_from
           AND NOT EXISTS (SELECT FROM now_so n
                            WHERE n.machine_id = h.machine_id AND n.hour_start = h.hour_start)
    )
    INSERT INTO anomaly.machine_hours AS h
    SELECT * FROM now_so
        ON CONFLICT (machine_id, hour_start) DO UPDATE
       SET (local_date, readings, anomalies, meter_faults, energy_kwh, energy_hours,
            mean_power_kw, power_hours, peak_power_kw, expected_kwh, expected_hours, excess_kwh) = ROW(
            excluded.local_date, excluded.readings, excluded.anomalies, excluded.meter_faults,
            excluded.energy_kwh, excluded.energy_hours, excluded.mean_power_kw,
            excluded.power_hours, excluded.peak_power_kw, excluded.expected_kwh,
            excluded.expected_hours, excluded.excess_kwh)
     WHERE h.* IS DISTINCT FROM excluded.*
       AND (h.hour_start >= kept_from OR excluded.readings >= h.readings);

    PERFORM anomaly.refresh_days(array_agg(a.machine_id),
                                 array_agg((a.first_at AT TIME ZONE m.clock)::date),
                                 array_agg((a.last_at AT TIME ZONE m.clock)::date))
       FROM unnest(machines, firsts, lasts) AS a (machine_id, first_at, last_at)
       JOIN anomaly.machines m ON m.machine_id = a.machine_id;
END
$$;
COMMENT ON FUNCTION anomaly.refresh_sums(integer[], timestamptz[], timestamptz[]) IS
    'Makes machine_hours and machine_days right again for each machine from the first to the last verdict that changed';
REVOKE ALL ON FUNCTION anomaly.refresh_sums(integer[], timestamptz[], timestamptz[]) FROM PUBLIC;

CREATE FUNCTION anomaly.refresh_days(machines integer[], first_days date[], last_days date[])
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET work_mem = '64MB'
AS $$
BEGIN
    WITH asked AS MATERIALIZED (
        SELECT m.machine_id, m.clock, a.first_day, a.last_day
          FROM unnest(machines, first_days, last_days) AS a (machine_id, first_day, last_day)
          JOIN anomaly.machines m ON m.machine_id = a.machine_id
    ), now_so AS MATERIALIZED (
        SELECT h.machine_id, h.local_date, sum(h.readings) AS readings,
               sum(h.anomalies) AS anomalies, sum(h.meter_faults) AS meter_faults,
               sum(h.energy_kwh) AS energy_kwh, sum(h.energy_hours) AS energy_hours,
               sum(h.mean_power_kw * h.power_hours) / nullif(sum(h.power_hours), 0)
                   AS mean_power_kw,
               sum(h.power_hours) AS power_hours, max(h.peak_power_kw) AS peak_power_kw,
               sum(h.expected_kwh) AS expected_kwh, sum(h.expected_hours) AS expected_hours,
               sum(h.excess_kwh) AS excess_kwh
          FROM asked a
          JOIN anomaly.machine_hours h
            ON h.machine_id = a.machine_id
           -- The days of any clock lie within these: for the index.
           AND h.hour_start >= (a.first_day - 1)::timestamp AT TIME ZONE a.clock
           AND h.hour_start < (a.last_day + 2)::timestamp AT TIME ZONE a.clock
           AND h.local_date BETWEEN a.first_day AND a.last_day
         GROUP BY 1, 2
    ), gone AS (
        DELETE FROM anomaly.machine_days d
         USING asked a
         WHERE d.machine_id = a.machine_id AND d.local_date BETWEEN a.first_day AND a.last_day
           AND NOT EXISTS (SELECT FROM now_so n
                            WHERE n.machine_id = d.machine_id AND n.local_date = d.local_date)
    )
    INSERT INTO anomaly.machine_days AS d
    SELECT * FROM now_so
        ON CONFLICT (machine_id, local_date) DO UPDATE
       SET (readings, anomalies, meter_faults, energy_kwh, energy_hours, mean_power_kw,
            power_hours, peak_power_kw, expected_kwh, expected_hours, excess_kwh) = ROW(
            excluded.readings, excluded.anomalies, excluded.meter_faults, excluded.energy_kwh,
            excluded.energy_hours, excluded.mean_power_kw, excluded.power_hours,
            excluded.peak_power_kw, excluded.expected_kwh,
            excluded.expected_hours, excluded.excess_kwh)
     WHERE d.* IS DISTINCT FROM excluded.*;
END
$$;
COMMENT ON FUNCTION anomaly.refresh_days(integer[], date[], date[]) IS
    'Makes machine_days the sums of machine_hours again, for each machine from its first to its last day';
REVOKE ALL ON FUNCTION anomaly.refresh_days(integer[], date[], date[]) FROM PUBLIC;

CREATE FUNCTION anomaly.refresh_sums_of(machines integer[])
RETURNS void
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT anomaly.refresh_sums(array_agg(machine_id), array_agg(first_at), array_agg(last_at))
      FROM (SELECT asked.machine_id, min(r.utc_timestamp) AS first_at,
                   max(r.utc_timestamp) AS last_at
              FROM unnest(machines) AS asked (machine_id)
              JOIN anomaly.anomaly_results r ON r.machine_id = asked.machine_id
             GROUP BY asked.machine_id) AS judged
    HAVING count(*) > 0
$$;
COMMENT ON FUNCTION anomaly.refresh_sums_of(integer[]) IS
    'Makes machine_hours and machine_days right again for all verdicts of machines';
REVOKE ALL ON FUNCTION anomaly.refresh_sums_of(integer[]) FROM PUBLIC;

-- Machines ------------------------------------------------------------------

CREATE FUNCTION anomaly.set_clock()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    NEW.clock := anomaly.clock_or_utc(NEW.time_zone);
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION anomaly.set_clock() IS 'Keeps machines.clock';
CREATE TRIGGER machines_set_clock BEFORE INSERT OR UPDATE ON anomaly.machines
    FOR EACH ROW EXECUTE FUNCTION anomaly.set_clock();

CREATE FUNCTION anomaly.know_site()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM anomaly.sites WHERE name = NEW.site) THEN
        INSERT INTO anomaly.sites (name) VALUES (NEW.site) ON CONFLICT DO NOTHING;
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION anomaly.know_site() IS 'Gives a number to a site that a machine names first';
CREATE TRIGGER machines_know_site AFTER INSERT OR UPDATE OF site ON anomaly.machines
    FOR EACH ROW EXECUTE FUNCTION anomaly.know_site();

-- Another clock has other days. Those of dropped verdicts stay as they are. Nobody publishes
-- meanwhile: what is published next is summed by the new clock.
CREATE FUNCTION anomaly.change_clock()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    first_at timestamptz;
BEGIN
    PERFORM FROM anomaly.locks WHERE name = 'publishing' FOR UPDATE;
    first_at := (SELECT min(utc_timestamp) FROM anomaly.anomaly_results
                  WHERE machine_id = NEW.machine_id);
    DELETE FROM anomaly.machine_hours
     WHERE machine_id = NEW.machine_id AND hour_start > first_at - interval '1 hour';
    PERFORM anomaly.refresh_sums_of(ARRAY[NEW.machine_id]);
    -- The days of both clocks: what was dropped keeps the old one.
    PERFORM anomaly.refresh_days(ARRAY[NEW.machine_id], ARRAY[min(d.local_date)],
                                 ARRAY[max(d.local_date)])
       FROM anomaly.machine_days d
      WHERE d.machine_id = NEW.machine_id
        AND d.local_date >= (first_at AT TIME ZONE 'UTC')::date - 1;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION anomaly.change_clock() IS 'Sums a machine''s verdicts by its new clock';
CREATE TRIGGER machines_change_clock AFTER UPDATE ON anomaly.machines
    FOR EACH ROW WHEN (OLD.clock <> NEW.clock) EXECUTE FUNCTION anomaly.change_clock();

REVOKE ALL ON FUNCTION anomaly.clock_or_utc(text), anomaly.set_clock(), anomaly.know_site(),
    anomaly.change_clock() FROM PUBLIC;

-- Without WITH: a query that scans one is not run in parallel.
CREATE VIEW anomaly.price_periods AS
SELECT s.site_id, p.valid_from AS starts,
       lead(p.valid_from, 1, 'infinity') OVER (PARTITION BY s.site_id ORDER BY p.valid_from) AS ends,
       p.price_per_kwh, p.currency
  FROM anomaly.sites s
  JOIN anomaly.energy_prices p ON p.site = s.name
 UNION ALL
SELECT s.site_id, g.starts, least(g.ends, f.first_own), g.price_per_kwh, g.currency
  FROM anomaly.sites s
 CROSS JOIN (
       SELECT p.valid_from AS starts, p.price_per_kwh, p.currency,
              lead(p.valid_from, 1, 'infinity') OVER (ORDER BY p.valid_from) AS ends
         FROM anomaly.energy_prices p
        WHERE p.site = ''
       ) AS g
  LEFT JOIN (
       SELECT p.site, min(p.valid_from) AS first_own FROM anomaly.energy_prices p GROUP BY p.site
       ) AS f ON f.site = s.name
 WHERE s.name <> '' AND (f.first_own IS NULL OR g.starts < f.first_own);
COMMENT ON VIEW anomaly.price_periods IS 'Which price holds at each site, from when to when';
COMMENT ON COLUMN anomaly.price_periods.site_id IS 'The site';
COMMENT ON COLUMN anomaly.price_periods.starts IS 'First local day';
COMMENT ON COLUMN anomaly.price_periods.ends IS 'Last local day, not included; infinity: until further notice';
COMMENT ON COLUMN anomaly.price_periods.price_per_kwh IS 'Price of a kWh';
COMMENT ON COLUMN anomaly.price_periods.currency IS 'ISO 4217, as EUR';
