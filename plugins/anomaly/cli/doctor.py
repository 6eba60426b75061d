"""``anomaly doctor``: what is set up wrongly, and how to mend it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated
from urllib.parse import quote, urlencode

import typer

from anomaly.cli.console import NEEDS_ATTENTION, AsJson, connect, print_json, say
from anomaly.database.connection import Database
from anomaly.database.explained_errors import EXPLAINED, explained
from anomaly.errors import AnomalyError
from anomaly.operations.doctor import (
    Finding,
    Level,
    error,
    examine,
    examine_installation,
    good,
    same_database,
    warning,
)
from anomaly.settings import Settings
from anomaly.wording import without_secrets

CONNECTION = "anomaly_db"
_ANSWER_SECONDS = 120  # chosen: Airflow's command line needs some seconds to start
_SIGNS = {Level.GOOD: ("ok", "green"), Level.WARNING: ("!!", "yellow"), Level.ERROR: ("no", "red")}


def doctor(
    airflow: Annotated[
        bool,
        typer.Option(
            help="Whether to ask Airflow for its connection anomaly_db, which takes a few seconds."
        ),
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Look for what is set up wrongly, and say how to mend it. Exits with 3 if there is anything.

    It looks at the package, the settings, the connection and its Extra, roles and grants, the
    schema, months of results, the meter table, time zones, clocks, model files and the lag. It
    writes nothing.

    Example: anomaly doctor --no-airflow
    """
    findings = []
    for found in _all_findings(airflow):
        finding = replace(found, found=without_secrets(found.found))
        findings.append(finding)
        if not as_json:
            _print(finding)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    if any(finding.level is not Level.GOOD for finding in findings):
        raise typer.Exit(NEEDS_ATTENTION)


def _print(finding: Finding) -> None:
    sign, style = _SIGNS[finding.level]
    say(f"{sign}  {finding.about}: {finding.found}", style=style)
    for line in finding.fix.splitlines():
        say(f"    {line}")


def _all_findings(airflow: bool) -> Iterator[Finding]:
    yield from examine_installation()
    try:
        database, settings = connect(migrated=False)
    except AnomalyError as failure:
        yield error("settings", str(failure), "")
        return
    yield good("settings", "every value is allowed; `anomaly config` shows them")
    if airflow:
        yield from _examine_airflow(database, settings)
    yield from examine(database, settings, datetime.now(UTC))


def _examine_airflow(database: Database, settings: Settings) -> Iterator[Finding]:
    try:
        with database.transaction(read_only=True):
            pass
    except (AnomalyError, *EXPLAINED):
        return  # the next finding names it, and nothing can be compared
    try:
        uri = _airflow_connection()
        if uri is None:
            yield good("Airflow", "none is set up here, so its connection was not looked at")
            return
        other = Database(uri, settings.database)
        try:
            same = same_database(database, other)
        finally:
            other.dispose()
    except (AnomalyError, *EXPLAINED) as failure:
        yield error("Airflow", f"its connection cannot be used: {explained(failure)}", "")
        return
    if same:
        yield good("Airflow", f"connection {CONNECTION} leads to the same database")
    else:
        yield warning(
            "Airflow",
            f"connection {CONNECTION} leads to another database than ANOMALY_DATABASE_URL",
            "correct one of them: commands and DAGs would not see each other's verdicts",
        )


def _airflow_connection() -> str | None:
    """URI of Airflow's connection; None where no Airflow is set up.

    Raises
    ------
    AnomalyError
        When Airflow does not know the connection, or does not answer.
    """
    if uri := os.environ.get(f"AIRFLOW_CONN_{CONNECTION.upper()}"):
        if not uri.lstrip().startswith("{"):
            return uri
        return _uri_of_json(uri)
    command = Path(sys.executable).with_name("airflow")
    is_set_up = any(name.startswith("AIRFLOW_") for name in os.environ)
    if not command.exists() or not (is_set_up or Path("~/airflow").expanduser().is_dir()):
        return None
    try:
        answer = subprocess.run(  # noqa: S603
            [command, "connections", "get", CONNECTION, "-o", "json"],
            capture_output=True,
            text=True,
            timeout=_ANSWER_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise AnomalyError(f"airflow did not answer within {_ANSWER_SECONDS} s") from None
    try:
        (found,) = json.loads(answer.stdout[answer.stdout.index("[") :])
        return str(found["get_uri"])
    except (ValueError, KeyError, TypeError):
        said = (answer.stderr.strip() or answer.stdout.strip() or "nothing").splitlines()[-1]
        raise AnomalyError(
            f"Airflow does not give the connection {CONNECTION} ({said}): add it by `airflow"
            f" connections add {CONNECTION} --conn-uri postgres://...`"
        ) from None


def _uri_of_json(text: str) -> str:
    try:
        found = json.loads(text)
        extra = found.get("extra") or {}
        query = json.loads(extra) if isinstance(extra, str) else extra
        login, password, database = (
            quote(str(found.get(name) or ""), safe="") for name in ("login", "password", "schema")
        )
        port = f":{int(found['port'])}" if found.get("port") else ""
        host = found.get("host") or ""
        return f"postgresql://{login}:{password}@{host}{port}/{database}?{urlencode(query)}"
    except (ValueError, AttributeError, TypeError) as failure:
        raise AnomalyError(
            f"AIRFLOW_CONN_{CONNECTION.upper()} is no JSON of a connection ({failure}): correct it"
        ) from None
