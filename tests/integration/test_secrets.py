"""The passwords that were set are looked for wherever they must not be: outputs, logs, tables."""

import json
import subprocess
import sys
from urllib.parse import quote, quote_plus

import psutil
import pytest
from api_server import environment, plant, serving
from sqlalchemy import make_url

from deployment import own_log_in
from integration_settings import SMALL

DATABASE, ROUTE, MAIL = "Pw of/the@data%base", "Tk-of-a-webhook", "Pw/of@the mail"
ROUTES = [
    {"name": "ops", "urls": [f"json://127.0.0.1:9/{ROUTE}"]},
    {
        "name": "mail",
        "urls": [f"mailto://me:{quote(MAIL, safe='')}@127.0.0.1:9/?to=you@example.org"],
    },
]
COMMANDS = [
    ["status"], ["doctor"], ["config"], ["config", "--json"], ["migrate"],
    ["models", "list"], ["models", "verify"], ["machines", "list"], ["incidents", "--all"],
    ["alerts", "list"], ["alerts", "test"], ["alerts", "send"], ["metrics"], ["keys", "list"],
    ["score", "--start", "2026-03-03", "--end", "2026-03-04"], ["reconcile"], ["--help"],
]  # fmt: skip
BROKEN = {
    "another password": lambda url: url.set(password=f"{DATABASE}x"),
    "no such database": lambda url: url.set(database="nowhere"),
    "no such host": lambda url: url.set(host="no.such.host.example"),
    "no such port": lambda url: url.set(port=1),
    "a password in an item": lambda url: url.set(password=None).update_query_dict(
        {"password": DATABASE, "sslmode": "wrong"}
    ),
}


@pytest.fixture
def variables(postgres, database, settings):
    """A deployment whose log-in and routes have passwords that can be looked for."""
    plant(database, settings, machines=2)
    own_log_in(postgres, "keeper_of_secrets", DATABASE)
    name = database.engine.url.database
    url = postgres.url(name, "keeper_of_secrets", DATABASE)
    return environment(database, settings, **SMALL) | {
        "ANOMALY_DATABASE_URL": url,
        "ANOMALY_ALERT_ROUTES": json.dumps(ROUTES),
    }


def assert_nothing_of(text: str, where: object, *secrets: str) -> None:
    for secret in (DATABASE, ROUTE, MAIL, *secrets):
        for spelt in (secret, quote(secret), quote(secret, safe=""), quote_plus(secret)):
            assert spelt not in text, f"{spelt} stands in {where}"


def test_no_command_says_a_password_whether_it_works_or_not(command_line, variables, tmp_path):
    for command in COMMANDS:
        said = command_line.run(command, variables, folder=tmp_path)
        assert "Traceback" not in said.stderr, (command, said.stderr)
        assert_nothing_of(said.stdout + said.stderr, command)
    url = make_url(variables["ANOMALY_DATABASE_URL"])
    for name, change in BROKEN.items():
        broken = change(url).render_as_string(hide_password=False)
        for command in (["status"], ["migrate"], ["metrics"]):
            said = command_line.run(
                command, variables | {"ANOMALY_DATABASE_URL": broken}, folder=tmp_path
            )
            assert said.returncode != 0
            assert_nothing_of(said.stdout + said.stderr, (name, command))
    for name, text in (
        ("an @ in it", str(url).replace("***", f"{DATABASE}@rest")),
        ("no number", "postgresql://me:" + DATABASE + "@host:port/x"),
    ):
        said = command_line.run(
            ["status"], variables | {"ANOMALY_DATABASE_URL": text}, folder=tmp_path
        )
        assert said.returncode == 1
        assert_nothing_of(said.stdout + said.stderr, name)


def test_no_table_holds_a_password_or_a_key(command_line, postgres, database, variables, tmp_path):
    made = command_line.run(["keys", "create", "gateway", "--json"], variables, folder=tmp_path)
    key = json.loads(made.stdout)["key"]
    command_line.run(["alerts", "test"], variables, folder=tmp_path)
    dump = subprocess.run(
        [str(postgres.psql.with_name("pg_dump")), "--dbname",
         database.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert "anomaly.api_keys" in dump.stdout
    assert_nothing_of(dump.stdout, "the database", key)


def test_no_argument_no_file_and_no_answer_of_the_api_holds_one(command_line, variables, tmp_path):
    made = command_line.run(["keys", "create", "gateway", "--json"], variables, folder=tmp_path)
    key = json.loads(made.stdout)["key"]
    work = tmp_path / "work"
    work.mkdir()
    with serving(variables, folder=work) as api:
        api.client.headers["Authorization"] = f"Bearer {key}"
        said = [
            api.client.get(path).text
            for path in ("/health", "/metrics", "/openapi.json", "/machines", "/nothing")
        ]
        said.append(api.client.get("/machines", headers={"X-API-Key": "wrong"}).text)
        arguments = " ".join(psutil.Process(api.process.pid).cmdline())
        api.client.get("/machines")
    assert_nothing_of("".join(said) + arguments + "".join(api.lines), "the API", key)
    for file in (path for path in work.rglob("*") if path.is_file()):
        assert_nothing_of(file.read_text(errors="replace"), file, key)


def test_a_crash_with_a_traceback_shows_none(variables, tmp_path):
    """Even where the product is at fault, in a process that dies of it."""
    program = (
        "import sys; from anomaly.cli import console\n"
        "database, settings = console.connect()\n"
        "print(settings, database.name, repr(database))\n"
        "raise RuntimeError(f'{settings!r} {database.name}')"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], env=variables, capture_output=True, text=True, check=False
    )

    assert "RuntimeError" in found.stderr
    assert "DatabaseSettings(" in found.stdout
    assert_nothing_of(found.stdout + found.stderr, "a traceback")
