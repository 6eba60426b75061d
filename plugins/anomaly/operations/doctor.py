"""Look for what is set up wrongly, and say how to mend it."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from zoneinfo import available_timezones

from anomaly.current_user import current_user
from anomaly.database.connection import SCORER, Database
from anomaly.database.explained_errors import EXPLAINED, explained
from anomaly.database.machines import known_machines
from anomaly.database.meter_table import MeterSource
from anomaly.database.migrations import missing_source_grants, schema_state
from anomaly.database.model_in_force import champion
from anomaly.database.setup import (
    detached_months,
    is_without_time_index,
    missing_grants,
    public_is_open,
    roles,
    server,
)
from anomaly.errors import AnomalyError, ArtefactError, SettingsError
from anomaly.installation import PACKAGE, other_copies
from anomaly.lifecycle.promotion import Promoter
from anomaly.models.artefacts import Registry
from anomaly.operations.status import Status, status
from anomaly.scoring.judging import refuse_other_readings
from anomaly.settings import Settings
from anomaly.wording import counted

OLDEST_POSTGRES, NEWEST_POSTGRES = 15, 18
"""Versions of Postgres that the tests run on."""
MOST_SKEW = timedelta(seconds=30)
"""The clocks of this machine and of the server may differ by so much. Chosen."""


class Level(StrEnum):
    """How bad a finding is."""

    GOOD = "good"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Finding:
    """Something that was looked at: what was found, and how to mend it.

    `fix` is empty where nothing is to be mended, and where `found` says it already.
    """

    about: str
    level: Level
    found: str
    fix: str = ""


def good(about: str, found: str) -> Finding:
    """A finding that needs nothing."""
    return Finding(about, Level.GOOD, found)


def warning(about: str, found: str, fix: str) -> Finding:
    """A finding that should be mended."""
    return Finding(about, Level.WARNING, found, fix)


def error(about: str, found: str, fix: str) -> Finding:
    """A finding without whose mending nothing works."""
    return Finding(about, Level.ERROR, found, fix)


def examine_installation() -> Iterator[Finding]:
    """Look at the package itself."""
    copies = other_copies()
    for folder, version in copies.items():
        yield warning(
            "package",
            f"{PACKAGE} is used, and {folder} (version {version}) is not",
            "remove one of the two: the folder of plugins needs no copy where the wheel is"
            " installed",
        )
    if not copies:
        yield good("package", f"{PACKAGE}")


def examine(database: Database, settings: Settings, as_of: datetime) -> Iterator[Finding]:
    """Look at a deployment, from the server to the newest verdict.

    What can only be seen behind an error is left out.

    Parameters
    ----------
    as_of : datetime
        The time now, to be compared with the server's clock.
    """
    for part in (_server, _roles, _schema, _results, _meter_table, _machines, _models, _state):
        found = []
        try:
            for finding in part(database, settings, as_of):
                found.append(finding)
                yield finding
        except (AnomalyError, *EXPLAINED) as failure:
            found.append(_failed(part.__name__.strip("_").replace("_", " "), failure))
            yield found[-1]
        if any(finding.level is Level.ERROR for finding in found):
            return


def same_database(one: Database, other: Database) -> bool:
    """Whether two URLs lead to the same database of the same server."""
    first, second = server(one), server(other)
    return all(first[name] == second[name] for name in ("database", "started_at"))


def _failed(about: str, failure: BaseException) -> Finding:
    return error(about, str(explained(failure)), "")


def _server(database: Database, _settings: Settings, as_of: datetime) -> Iterator[Finding]:
    found = server(database)
    version = int(found["version"]) // 10_000
    yield good("connection", f"{found['login']} at {database.name}")
    if OLDEST_POSTGRES <= version <= NEWEST_POSTGRES:
        yield good("server", f"Postgres {found['version_text']}")
    else:
        yield warning(
            "server",
            f"Postgres {found['version_text']}",
            f"use one of the versions {OLDEST_POSTGRES} to {NEWEST_POSTGRES}, on which this is"
            " tested",
        )
    if found["is_standby"]:
        yield error(
            "server", "a standby, which accepts no writes", "name the primary in the connection"
        )
    skew = found["now"] - as_of
    if abs(skew) > MOST_SKEW:
        yield warning(
            "clock",
            f"the server's clock is {skew.total_seconds():+.0f} s off this machine's",
            "let both follow the same time (NTP): readings are due by this machine's clock",
        )
    else:
        yield good("clock", "the server's is this machine's")
    if found["is_superuser"]:
        yield warning(
            "log-in",
            f"{found['login']} is a superuser",
            "use a log-in of its own, see the README: whoever has this connection may do anything",
        )
    elif found["may_make_roles"]:
        yield warning(
            "log-in",
            f"{found['login']} may make roles, which only `anomaly migrate` needs",
            f"let an administrator run ALTER ROLE {found['login']} NOCREATEROLE",
        )


def _roles(database: Database, _settings: Settings, _as_of: datetime) -> Iterator[Finding]:
    found = roles(database)
    for role in found:
        if not role["exists"]:
            yield error("roles", f"there is no role {role['name']}", "run `anomaly migrate`")
        elif not role["is_granted"]:
            yield error(
                "roles",
                f"this log-in may not act as {role['name']}",
                f"let an administrator run GRANT {role['name']} TO the log-in of the connection",
            )
    if all(role["is_granted"] for role in found):
        yield good("roles", "this log-in may act as owner, scorer, trainer and API")
    with database.transaction() as transaction:
        if public_is_open(transaction):
            yield warning(
                "roles",
                "every log-in may create objects in the schema public",
                "let its owner run REVOKE CREATE ON SCHEMA public FROM PUBLIC",
            )


def _schema(database: Database, _settings: Settings, _as_of: datetime) -> Iterator[Finding]:
    found = schema_state(database)
    if found.unknown:
        yield error(
            "schema",
            f"it has {found.unknown[-1]}, which this version does not know",
            "install the version that has migrated it, here and where Airflow runs",
        )
    if found.missing:
        yield error("schema", f"it lacks {found.missing[0]}", "run `anomaly migrate`")
    if found.changed:
        yield error(
            "schema",
            f"{found.changed[0]} was applied with another text",
            "install the wheel again: its files were changed",
        )
    if not (found.unknown or found.missing or found.changed):
        yield good("schema", "every migration is applied")
        if missing := missing_grants(database):
            yield error(
                "schema",
                f"rights are missing: {', '.join(missing)}",
                "run `anomaly migrate`, which grants them",
            )


def _results(database: Database, _settings: Settings, _as_of: datetime) -> Iterator[Finding]:
    if months := detached_months(database):
        yield warning(
            "results",
            f"{', '.join(months)}: no partition of anomaly.anomaly_results",
            "that month cannot be scored until then: let its owner attach it by ALTER TABLE"
            " anomaly.anomaly_results ATTACH PARTITION ..., as the scoring's error says in full,"
            " or rename it",
        )
    else:
        yield good("results", "every month is attached")


def _meter_table(database: Database, settings: Settings, _as_of: datetime) -> Iterator[Finding]:
    source = MeterSource(settings.meter_table, settings.meter)
    with database.transaction(SCORER, read_only=True) as transaction:
        shape = source.describe(transaction)
    if grants := missing_source_grants(database, settings.meter_table):
        yield error(
            "meter table",
            f"anomaly_source may not read {settings.meter_table.source_name}",
            f"let its owner run\n{grants}",
        )
        return
    yield good("meter table", f"{settings.meter_table.source_name} is as the settings say")
    if is_without_time_index(database, settings.meter_table):
        column = settings.meter_table.source_timestamp_column
        yield warning(
            "meter table",
            f"no index begins with {column}",
            f"let its owner run CREATE INDEX ON {settings.meter_table.source_name} ({column}):"
            " every run looks readings up by it",
        )
    if shape.written is None:
        yield warning(
            "meter table",
            "it does not say when a row was written",
            "a column for that, named in ANOMALY_SOURCE_INGESTED_AT_COLUMN, lets the next run find"
            " late readings; without it `reconcile_scores` finds them the next morning",
        )


def _machines(database: Database, settings: Settings, _as_of: datetime) -> Iterator[Finding]:
    with database.transaction(SCORER, read_only=True) as transaction:
        zones = known_machines(transaction)["time_zone"]
    here = str(server(database)["time_zone"])
    wrong = sorted(set(zones) - available_timezones())
    if wrong:
        yield error(
            "machines",
            f"the time zone {wrong[0]!r} does not exist",
            "run `anomaly machines set --time-zone ...` for its machines",
        )
    elif len(zones) and set(zones) == {"UTC"} and here not in ("UTC", "Etc/UTC", "GMT"):
        yield warning(
            "machines",
            f"all have the time zone UTC, and the server's is {here}",
            f"if that is where they stand, run `anomaly machines set --all --time-zone {here}` and"
            f" set ANOMALY_SOURCE_TIMEZONE to {here} for new ones: working days and the times in"
            " reasons follow it",
        )
    elif not len(zones):
        yield good("machines", "none yet: the first run that finds their readings adds them")
    else:
        yield good(
            "machines",
            f"{counted(len(zones), 'machine')} in {counted(len(set(zones)), 'time zone')}",
        )


def _model_in_force(database: Database, settings: Settings) -> Iterator[Finding]:
    """Whether the version that judges new readings was trained on such as the settings name."""
    with database.transaction(SCORER, read_only=True) as transaction:
        found = champion(transaction)
    if found is None:
        return
    try:
        model = Registry(settings.models.models_url).load(found.artefact)
    except ArtefactError:
        return  # named already
    try:
        refuse_other_readings(found.version, model, settings.meter)
    except SettingsError as failure:
        yield error("models", str(failure), "scoring stops until then")


def _models(database: Database, settings: Settings, _as_of: datetime) -> Iterator[Finding]:
    versions = Promoter(database, settings).verify([])
    broken = {version: text for version, text in versions.items() if text}
    for version, text in broken.items():
        yield warning(
            "models",
            f"version {version}: {text}",
            f"let this account ({current_user()}) read it"
            if "ermission denied" in text
            else "restore its folder from a backup, or promote another version",
        )
    yield from _model_in_force(database, settings)
    url = settings.models.models_url
    if "://" not in url:
        if not Path(url).is_absolute():
            yield warning(
                "models",
                f"ANOMALY_MODELS_URL is {url!r}, below whatever folder a process works in",
                "write an absolute path, or s3://...: every worker must find the same files",
            )
        if Path(url).is_dir() and not _is_writable(url):
            yield warning(
                "models",
                f"this account may not write below {url}",
                "let the account that trains write there",
            )
    if not versions:
        yield warning("models", "there is no version yet", "run `anomaly train --promote`")
    elif not broken:
        yield good(
            "models", f"the files of {counted(len(versions), 'version')} are what was registered"
        )


def _is_writable(folder: str) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _state(database: Database, settings: Settings, as_of: datetime) -> Iterator[Finding]:
    found = status(database, settings, as_of)
    for problem in found.problems:
        yield warning("state", problem, "")
    warnings = list(_lag(found, settings))
    yield from warnings
    if not (found.problems or warnings):
        yield good("state", "nothing needs attention")


def _lag(found: Status, settings: Settings) -> Iterator[Finding]:
    if found.future_readings:
        yield warning(
            "state",
            f"{found.future_readings} readings are of the future",
            "check ANOMALY_SOURCE_TIMEZONE and the clock of what writes them",
        )
    lag = found.lag_minutes
    if lag is None:
        yield warning("state", "nothing has been scored on schedule yet", "turn score_readings on")
    elif timedelta(minutes=lag) > settings.dags.scoring_run(settings.meter.interval):
        yield warning(
            "state",
            f"scored up to {found.watermark:%Y-%m-%d %H:%M} UTC only",
            "look at the last runs of score_readings: are they on, queued, or failing?",
        )
