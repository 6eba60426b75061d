"""``make bench-bi``: a year of 1,000 machines behind the views, asked what BI tools ask.

Each question is asked three times as a BI log-in would, and the best time counts: that of a
dashboard in use. The plans are written to ``benchmarks/bi-plans.txt``.
"""

import re
import sys
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from sqlalchemy import text

from anomaly.database.connection import Database
from benchmarks.deployments import deployment
from benchmarks.figures import PAGE, Figure, print_table, saying, seconds, write_page

MACHINES, DAYS = 1_000, 365
YEAR = datetime(2026, 1, 1, tzinfo=UTC)
PLANS = Path(__file__).with_name("bi-plans.txt")
MONTH_SECONDS, YEAR_SECONDS = 1.0, 3.0

_MONTH = "BETWEEN '2026-11-01' AND '2026-11-30'"
_IN_MONTH = ">= '2026-11-01' AND {} < '2026-12-01'"
_MONTH_QUESTIONS = {
    "verdicts of a machine": "SELECT local_time, power_kw, expected_kw, anomaly FROM bi.verdicts"
    " WHERE machine_id = 500 AND utc_timestamp >= '2026-11-01' AND utc_timestamp < '2026-12-01'",
    "anomalies per machine": "SELECT machine, count(*), max(anomaly_score) FROM bi.anomalies"
    " WHERE utc_timestamp >= '2026-11-01' AND utc_timestamp < '2026-12-01' GROUP BY machine",
    "machine_hours, energy and cost per hour of the day": "SELECT hour, sum(energy_kwh), sum(cost)"
    " FROM bi.machine_hours WHERE hour_start >= '2026-11-01' AND hour_start < '2026-12-01'"
    " GROUP BY hour",
    "machine_hours of a machine": "SELECT * FROM bi.machine_hours WHERE machine_id = 500"
    " AND hour_start >= '2026-11-01' AND hour_start < '2026-12-01'",
    "machine_hours, minutes in incident per site": "SELECT site, sum(incident_minutes)"
    " FROM bi.machine_hours WHERE hour_start >= '2026-11-01' AND hour_start < '2026-12-01'"
    " GROUP BY site",
    "machine_days, energy and cost per machine": "SELECT machine, sum(energy_kwh), sum(cost)"
    f" FROM bi.machine_days WHERE local_date {_MONTH} GROUP BY machine",
    "machine_days, minutes in incident per site": "SELECT site, sum(incident_minutes)"
    f" FROM bi.machine_days WHERE local_date {_MONTH} GROUP BY site",
    "machine_days, every column": f"SELECT * FROM bi.machine_days WHERE local_date {_MONTH}",
    "incidents by excess": "SELECT * FROM bi.incidents WHERE kind = 'machine'"
    f" AND local_date {_MONTH} ORDER BY excess_kwh DESC LIMIT 10",
    "meter_faults": f"SELECT * FROM bi.meter_faults WHERE local_date {_MONTH}",
    "alerts_weekly": "SELECT machine, sum(alerts), sum(budget), sum(real_alerts)"
    f" FROM bi.alerts_weekly WHERE week_start {_MONTH} GROUP BY machine",
    "labels": "SELECT label, count(*) FROM bi.labels GROUP BY label",
    "latest": "SELECT * FROM bi.latest",
    "machine_health": "SELECT * FROM bi.machine_health",
    "pipeline_health": "SELECT * FROM bi.pipeline_health",
    "scoring_runs": "SELECT origin, count(*), sum(scored) FROM bi.scoring_runs"
    f" WHERE published_at {_IN_MONTH.format('published_at')} GROUP BY origin",
    "backfills": "SELECT * FROM bi.backfills",
    "machines": "SELECT * FROM bi.machines",
    "sites": "SELECT * FROM bi.sites",
    "calendar": "SELECT * FROM bi.calendar",
    "models_in_force": "SELECT * FROM bi.models_in_force",
    "model_versions": "SELECT * FROM bi.model_versions",
}
_YEAR_QUESTIONS = {
    "machine_days, energy and cost per week and site": "SELECT week_start, site, sum(energy_kwh),"
    " sum(cost), sum(anomalies) FROM bi.machine_days GROUP BY week_start, site",
    "machine_days, minutes in incident per machine": "SELECT machine, sum(incident_minutes),"
    " sum(excess_kwh) FROM bi.machine_days GROUP BY machine",
    "alerts_weekly, precision per week": "SELECT week_start, sum(alerts), sum(budget),"
    " sum(real_alerts), sum(false_alarms) FROM bi.alerts_weekly GROUP BY week_start",
    "incidents per week and severity": "SELECT week_start, severity, count(*), sum(excess_kwh)"
    " FROM bi.incidents GROUP BY week_start, severity",
}
_FILL = """
INSERT INTO anomaly.anomaly_results (machine_id, utc_timestamp, reading, power_kw, power_diff,
    anomaly_score, threshold, anomaly, quality, origin, model_version, run_id, scored_at,
    expected_kw, features_version, energy_kwh, energy_hours)
SELECT m, ts, 1, p, p, 0.3, 0.5, CASE WHEN random() < 0.01 THEN 1 ELSE 0 END, 'ok', 'live', 1, 1,
       ts, 10 + m % 7, 2, p / 4, 0.25
  FROM generate_series(CAST(:start AS timestamptz),
                       CAST(:end AS timestamptz) - interval '15 minutes',
                       interval '15 minutes') AS ts,
       generate_series(1, :machines) AS m,
       LATERAL (SELECT 10 + m % 7 + random() AS p) AS drawn
"""
_SUM = """
SELECT anomaly.refresh_sums(array_agg(machine_id), array_agg(CAST(:start AS timestamptz)),
                            array_agg(CAST(:end AS timestamptz) - interval '1 second'))
  FROM anomaly.machines
"""
_REST = """
INSERT INTO anomaly.model_versions (version, detector, artefact, sha256, trained_from, trained_to,
    readings, parameters, library_versions, registered_by)
VALUES (1, 'signals', 'bench', '{}', '2025-01-01', '2026-01-01', 1, '{"alert_budget": 1}', '{}',
        'bench');
INSERT INTO anomaly.model_in_force (effective_from, version, recorded_by)
VALUES ('-infinity', 1, 'bench');
INSERT INTO anomaly.scoring_runs (run_id, window_start, window_end, written_from, written_to,
    origin, command, readings, scored, inserted, package_version, published_at, readings_to)
SELECT g, t - interval '15 minutes', t, t - interval '15 minutes', t, 'live', 'score_readings',
       9000, 9000, 1000, 'bench', t, t
  FROM (SELECT g, timestamptz '2026-01-01' + g * interval '15 minutes' AS t
          FROM generate_series(1, 35040) AS g) AS ticks;
INSERT INTO anomaly.incidents (machine_id, kind, started_at, ended_at, last_at, told_at, severity,
    reason, state, origin, opened_at, updated_at, excess_kwh, peak_score)
SELECT 1 + g % 1000, CASE WHEN g % 10 = 0 THEN 'meter' ELSE 'machine' END, t,
       t + (1 + g % 30) * interval '1 hour', t, t, 'warning', 'x', 'closed', 'live', t, t, g % 97,
       0.9
  FROM (SELECT g, timestamptz '2026-01-01' + g * interval '10 minutes' AS t
          FROM generate_series(1, 52000) AS g) AS found;
INSERT INTO anomaly.labels (machine_id, during, label, labelled_by)
SELECT machine_id, tstzrange(started_at, ended_at),
       CASE WHEN incident_id % 3 = 0 THEN 'real' ELSE 'false_alarm' END, 'bench'
  FROM anomaly.incidents WHERE incident_id % 7 = 0;
INSERT INTO anomaly.energy_prices VALUES ('', '2025-01-01', 0.2, 'EUR'),
    ('site 1', '2025-01-01', 0.21, 'EUR'), ('site 1', '2026-07-01', 0.25, 'EUR');
"""


def measure(database: Database) -> list[Figure]:
    """Fill, sum up, and ask every question."""
    with saying(f"{MACHINES * DAYS * 96:,} verdicts of {MACHINES:,} machines, and their sums"):
        filling, summing = _fill(database)
    _vacuum(database)
    # As a tick would: the newest reading of every machine has changed.
    with saying("the sums of a tick"):
        tick = seconds(lambda: _refresh_newest(database))
    base = seconds(lambda: _ask(database, "SELECT count(*) FROM anomaly.anomaly_results"))
    baseline = f"count of all verdicts: {base:.2f} s"
    figures = [
        Figure.at_most(
            f"sums of {MACHINES * DAYS * 96:,} verdicts",
            summing,
            "s",
            f"INSERT of the verdicts: {filling:.0f} s",
            filling,
            None,
        ),
        Figure(f"sums of a tick of {MACHINES:,} machines", tick, "s"),
    ]
    PLANS.write_text("", encoding="utf-8")
    for limit, span, questions in (
        (MONTH_SECONDS, "a month", _MONTH_QUESTIONS),
        (YEAR_SECONDS, "a year", _YEAR_QUESTIONS),
    ):
        for name, question in questions.items():
            best = min(seconds(partial(_ask, database, question)) for _ in range(3))
            figures.append(
                Figure(
                    f"{span}, {name}",
                    best,
                    "s",
                    baseline,
                    base / best,
                    f"at most {limit:g} s",
                    best <= limit,
                )
            )
            _keep_plan(database, f"{span}, {name}", question)
    return figures


def _fill(database: Database) -> tuple[float, float]:
    """Seconds that the verdicts took, and their sums."""
    with database.engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO anomaly.machines (machine_id, source_key, name, site, time_zone)"
                " SELECT g, 'machine_' || g, 'Machine ' || g, 'site ' || g % 5, 'Europe/Berlin'"
                " FROM generate_series(1, :machines) AS g"
            ),
            {"machines": MACHINES},
        )
        connection.execute(text("SELECT anomaly.ensure_partitions('2025-12-31', '2027-01-02')"))
    filling = summing = 0.0
    for day in range(0, DAYS, 5):
        ends = {
            "machines": MACHINES,
            "start": YEAR + timedelta(days=day),
            "end": YEAR + timedelta(days=min(day + 5, DAYS)),
        }
        with database.engine.begin() as connection:
            filling += seconds(partial(connection.execute, text(_FILL), ends))
            summing += seconds(partial(connection.execute, text(_SUM), ends))
    with database.engine.begin() as connection:
        connection.execute(text(_REST))
    return filling, summing


def _refresh_newest(database: Database) -> None:
    with database.engine.begin() as connection:
        connection.exec_driver_sql(
            "SELECT anomaly.refresh_sums(array_agg(machine_id), array_agg(t), array_agg(t))"
            "  FROM anomaly.machines, (SELECT timestamptz '2026-12-31 23:45Z' AS t) AS newest"
        )


def _vacuum(database: Database) -> None:
    with database.engine.connect() as connection:
        alone = connection.execution_options(isolation_level="AUTOCOMMIT")
        alone.exec_driver_sql("VACUUM ANALYZE")


def _ask(database: Database, question: str) -> None:
    with database.engine.connect() as connection:
        connection.exec_driver_sql("SET ROLE anomaly_bi" if " bi." in question else "SELECT 1")
        connection.exec_driver_sql(question).fetchall()
        connection.rollback()


def _keep_plan(database: Database, name: str, question: str) -> None:
    with database.engine.connect() as connection:
        found = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {question}")
        plan = "\n".join(row[0] for row in found)
    plan = re.sub(r"anomaly_results_(\d{4}_\d\d)_", r"results_\1_", plan)
    with PLANS.open("a", encoding="utf-8") as file:
        file.write(f"{name}\n{question}\n\n{plan}\n\n\n")


def main() -> None:
    """Measure, print the table and write it to the docs."""
    with deployment() as (database, _):
        figures = measure(database)
    print_table(figures)
    if "--no-docs" not in sys.argv:
        write_page(PAGE, "bench-bi", figures)


if __name__ == "__main__":
    main()
