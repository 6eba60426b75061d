"""URLs of databases as Airflow makes them of a connection: its Extra comes along."""

import json
from urllib.parse import quote_plus

import pytest

from anomaly.database.connection import Database
from anomaly.errors import DatabaseError
from anomaly.settings import load_settings


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
