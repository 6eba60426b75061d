"""URLs of databases as Airflow makes them of a connection: its Extra comes along."""

import json
import socket
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis_profiles import PROPERTY
from psycopg2.extensions import make_dsn

from anomaly.database.connection import Database
from anomaly.errors import DatabaseError
from anomaly.settings import load_settings
from anomaly.wording import without_secrets

PLACES = (
    "postgresql://me:{}@127.0.0.1:{port}/db",
    "postgresql://me:{}@127.0.0.1:{port}/db?sslmode=prefer&sslpassword={}",
    "postgresql://me:{}@127.0.0.1:{port}?host=127.0.0.1",
    "postgresql://127.0.0.1:{port}/db?password={}",
    "postgresql://me@127.0.0.1:{port}/db?password={}&sslmode=prefer",
    "postgresql:///db?host=127.0.0.1&port={port}&sslpassword={}",
    "postgresql://127.0.0.1:{port}/db?sslmode=require password={}",
    "postgresql://127.0.0.1:{port}/db?sslmode=require password='{}'",
    "postgresql://127.0.0.1:{port}/db?sslmode=require;password={}",
    "postgresql://127.0.0.1:{port}/db&password={}",
    "postgresql://127.0.0.1:{port}/db?password=a&.{}=b",
    "postgresql://127.0.0.1:{port}/db?sslmode=prefer;password={}&x=y",
    "postgresql://127.0.0.1:{port}/db password={}",
    "postgresql://127.0.0.1 password={}",
    "host=127.0.0.1 port={port} password={}",
    'postgresql://127.0.0.1:{port}/db?__extra__={{"password": "{}"}}',
    'postgresql://127.0.0.1:{port}/db?__extra__={{"sslmode": "x password={}"}}',
)
PASSWORDS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=4, max_size=20),
    st.lists(
        st.sampled_from([*"@/?#:&=;,%'\"\\ [].+", "://", "\n", "\0", "Hunter2x", "y&=", "q@h/"]),
        min_size=3,
        max_size=9,
    ).map("".join),
)


def database(extra, **items):
    query = {"__extra__": extra if isinstance(extra, str) else json.dumps(extra)} | items
    text = "&".join(f"{name}={quote_plus(value)}" for name, value in query.items())
    return Database(f"postgres://user:secret@host:5432/db?{text}", load_settings({}).database)


def test_an_extra_with_numbers_and_booleans_becomes_parameters_of_the_driver():
    made = database(
        {"keepalives_idle": 600, "keepalives": True, "sslmode": "prefer", "sslcert": None}
    )

    assert dict(made.engine.url.query) == {
        "keepalives_idle": "600",
        "keepalives": "1",
        "sslmode": "prefer",
    }


def test_what_airflow_s_hook_takes_for_itself_is_left_out():
    made = database({"cursor": "dictcursor", "iam": False, "sqlalchemy_query": {"a": 1}})

    assert dict(made.engine.url.query) == {}


@pytest.mark.parametrize("items", [{}, {"sslmod": "require"}])
def test_an_item_that_postgres_does_not_know_is_refused_by_its_name(items):
    extra = {} if items else {"sslmod": "secret"}

    with pytest.raises(DatabaseError, match="'sslmod' that Postgres does not know") as refused:
        database(extra, **items)

    assert "secret" not in str(refused.value)


def test_an_extra_that_is_no_object_is_refused():
    for extra in ("[1]", "{", "7"):
        with pytest.raises(DatabaseError, match="is not a JSON object"):
            database(extra)


def test_no_password_is_in_the_name_wherever_it_came_from():
    made = database({"password": "hidden", "sslpassword": "hidden"})

    assert made.name == "postgresql+psycopg2://user:***@host:5432/db"


def said_of(url):
    """What the error says when `url` is connected to; its server does not run."""
    limits = load_settings({}).database
    with pytest.raises(DatabaseError) as refused, Database(url, limits).transaction():
        pass
    return str(refused.value)


@pytest.fixture
def closed_port():
    with socket.socket() as held:  # bound, and nobody listens
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def parts_of(password, text, ordinary=""):
    """Runs of four characters of a password that stand in a text, and not in the ordinary one."""
    runs = {password[at : at + 4] for at in range(len(password) - 3)}
    return {run for run in runs if run in text and run not in ordinary}


@settings(PROPERTY, max_examples=20 * PROPERTY.max_examples)
@given(password=PASSWORDS)
def test_no_error_says_a_part_of_a_password_wherever_it_is_and_however_it_is_written(
    closed_port, password
):
    for place in PLACES:
        ordinary = place.format("x", "x", port=closed_port)
        for written in (password, quote(password, safe=""), quote_plus(password)):
            said = said_of(place.format(written, written, port=closed_port))

            assert "\n" not in said
            found = parts_of(password, said, ordinary + said_of(ordinary) + REFUSALS)
            assert not found, (place, written, said)


REFUSALS = """it is not plain where the password in the database URL ends: percent-encode what is
special in it, @ as %40, / as %2F, ? as %3F and # as %23"""


@pytest.mark.parametrize("item", ["password=a%00b", "a%00=b", '__extra__={"password":"a\\u0000b"}'])
def test_a_zero_character_is_refused_in_one_line(item):
    for url in (f"postgresql://127.0.0.1/db?{item}", "postgresql://me:%20%00x@127.0.0.1/db"):
        assert said_of(url).endswith("holds a zero character, written %00: remove it")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:a@Hunter2x/b@127.0.0.1:1/db",
        "postgresql://me:a@Hunter2x?b@127.0.0.1:1/db",
        "postgresql://me:a@Hunter2x#b@127.0.0.1:1/db",
        "postgresql://me:a/Hunter2x@127.0.0.1:1/db",
        "postgresql://me:a?Hunter2x@127.0.0.1:1/db",
        "postgresql://me:a#Hunter2x@127.0.0.1:1/db",
        "postgresql://127.0.0.1:1/db?password=a@Hunter2x",
    ],
)
def test_a_password_whose_end_is_not_plain_is_refused_with_what_to_write(url):
    assert said_of(url) == " ".join(REFUSALS.split("\n"))


ORDINARY = '"postgresql://me:***@host/db host=host dbname=db?password=*** is wrong'


@settings(PROPERTY, max_examples=60 * PROPERTY.max_examples)
@given(password=PASSWORDS.filter(lambda text: "\0" not in text and "\n" not in text))
def test_a_password_is_taken_out_of_a_url_and_of_a_string_of_postgres_s_library(password):
    for text in (
        f"postgresql://me:{password}@host/db is wrong",
        f"postgresql://me:{quote(password)}@host/db is wrong",
        f'"postgresql://host/db?password={quote_plus(password)}&sslmode=no" is wrong',
        f"{make_dsn(host='host', password=password, dbname='db')} is wrong",
    ):
        said = without_secrets(text)

        assert not parts_of(password, said, ORDINARY), said
