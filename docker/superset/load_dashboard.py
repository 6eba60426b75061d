"""Bring the dashboard of ``dashboard/`` into Superset, described as the database describes itself.

Run it where Superset's Python runs, with the read-only log-in in the environment:
``BI_DATABASE_URL=postgresql+psycopg2://... python load_dashboard.py``. It is safe to repeat, and
writes over what it brought before. With ``--zip FILE`` it only writes a file for the import form
of another Superset; this needs no Superset here, but psycopg2 and PyYAML.

The columns of the datasets and what they mean stand in the database (sql/views/comments.sql), so
the YAML files do not repeat them.
"""

import argparse
import os
import re
import sys
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import psycopg2
import yaml

FOLDER = Path(__file__).with_name("dashboard")
DATABASE = "databases/Anomaly.yaml"
HIDDEN = "X" * 10
"""What Superset writes for a password that an export leaves out."""
COLUMNS = """
SELECT a.attname, upper(format_type(a.atttypid, a.atttypmod)),
       col_description(a.attrelid, a.attnum), obj_description(a.attrelid, 'pg_class')
  FROM pg_attribute a
 WHERE a.attrelid = to_regclass(format('%%I.%%I', %s::text, %s::text))
   AND a.attnum > 0 AND NOT a.attisdropped
 ORDER BY a.attnum
"""
VIEW = "columns_mean_what_they_mean_in"
"""Where the file of a query names the view of its columns."""
TIMES = ("DATE", "TIMESTAMP")
WORDS = {"kwh": "kWh", "kw": "kW", "id": "number", "24h": "in 24 h", "expected": "usual"}
BY_THE_CLOCK = re.compile("local_(?!hour)")
"""Times by the machine's clock are the times that people read; the others say that they are UTC."""


def contents(url: str) -> dict[str, str]:
    """The files of ``dashboard/`` as Superset imports them, by their names in the bundle."""
    files = {
        str(path.relative_to(FOLDER)): yaml.safe_load(path.read_text(encoding="utf-8"))
        for path in sorted(FOLDER.rglob("*.yaml"))
    }
    files[DATABASE]["sqlalchemy_uri"] = without_password(url)
    parts = urlsplit(url)
    connection = psycopg2.connect(urlunsplit(parts._replace(scheme="postgresql")))
    try:
        with connection.cursor() as cursor:
            for name, config in files.items():
                if name.startswith("datasets/"):
                    describe(config, cursor)
    finally:
        connection.close()
    return {
        name: yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        for name, config in files.items()
    }


def describe(dataset: dict[str, Any], cursor: Any) -> None:
    """Fill in the columns of a dataset, and what the database says of it and of them.

    A dataset that is a query says itself what it is, of which view its columns are, and what those
    mean that the view has not.
    """
    said = {column["column_name"]: column for column in dataset.get("columns", [])}
    view = (dataset.get("extra") or {}).get(VIEW, dataset["table_name"])
    cursor.execute(COLUMNS, (dataset["schema"], view))
    found = cursor.fetchall()
    if not found:
        name = f"{dataset['schema']}.{view}"
        sys.exit(f"error: the database has no view {name}: run `anomaly migrate` first")
    if query := dataset.get("sql"):
        meanings = {name: meaning for name, _, meaning, _ in found}
        found = [(name, kind, meanings.get(name), None) for name, kind in columns(query, cursor)]
    else:
        dataset["description"] = found[0][3]
    dataset["columns"] = [
        {
            "column_name": name,
            "verbose_name": in_words(name, kind),
            "description": meaning,
            "type": kind,
            "is_dttm": kind.startswith(TIMES),
            "is_active": True,
            "groupby": True,
            "filterable": True,
        }
        | said.get(name, {})
        for name, kind, meaning, _ in found
    ]


def columns(query: str, cursor: Any) -> list[tuple[str, str]]:
    """Name and type of what a query gives."""
    cursor.execute(f"SELECT * FROM ({query}) AS query LIMIT 0")  # noqa: S608 - our own file
    found = [(column.name, column.type_code) for column in cursor.description]
    cursor.execute("SELECT oid, upper(format_type(oid, NULL)) FROM pg_type")
    kinds = dict(cursor.fetchall())
    return [(name, kinds[code]) for name, code in found]


def in_words(column: str, kind: str) -> str:
    """A column as people write it: ``expected_kw`` is Usual kW, ``local_start`` is Start."""
    said = " ".join(WORDS.get(word, word) for word in BY_THE_CLOCK.sub("", column).split("_"))
    said = said.removeprefix("utc ") + (", UTC" if kind == "TIMESTAMP WITH TIME ZONE" else "")
    return said[:1].upper() + said[1:]


def without_password(url: str) -> str:
    """The address with the mark that Superset puts in the place of a password."""
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{parts.username}:{HIDDEN}@{place}"))


def bring(url: str, prepare: bool) -> None:
    """Import everything as Superset's ``admin``, connected by `url`."""
    from flask import g
    from superset.app import create_app

    with create_app().app_context():
        from superset import security_manager
        from superset.commands.importers.v1.assets import ImportAssetsCommand

        if prepare:
            make_tables_and_admin(os.environ["SUPERSET_ADMIN_PASSWORD"])
        g.user = security_manager.find_user(username="admin")
        password = unquote(urlsplit(url).password or "")
        ImportAssetsCommand(contents(url), passwords={DATABASE: password}).run()


def make_tables_and_admin(password: str) -> None:
    """What `superset db upgrade`, `superset init` and `superset fab create-admin` do, at once."""
    import superset
    from flask_migrate import upgrade
    from superset import appbuilder, db, security_manager

    upgrade(directory=str(Path(superset.__file__).with_name("migrations")))
    appbuilder.add_permissions(update_perms=True)
    security_manager.sync_role_definitions()
    admin = security_manager.find_user(username="admin")
    if admin:
        security_manager.reset_password(admin.id, password)
    else:
        role = security_manager.find_role("Admin")
        names = {"first_name": "Plant", "last_name": "Admin", "email": "admin@localhost"}
        security_manager.add_user("admin", **names, role=role, password=password)
    db.session.commit()


def write_zip(url: str, path: Path) -> None:
    """Write a bundle for "Import dashboards"; Superset asks for the password there."""
    files = contents(url)
    files["metadata.yaml"] = files["metadata.yaml"].replace("type: assets", "type: Dashboard")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, text in files.items():
            bundle.writestr(f"plant/{name}", text)


def main() -> None:
    """Import, or write a zip file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--zip", type=Path, help="only write a file to import elsewhere")
    parser.add_argument(
        "--prepare", action="store_true", help="first make Superset's tables, roles and admin"
    )
    chosen = parser.parse_args()
    url = os.environ.get("BI_DATABASE_URL", "")
    if not url:
        sys.exit("error: BI_DATABASE_URL is empty: set it to the address of the read-only log-in")
    if chosen.zip:
        write_zip(url, chosen.zip)
    else:
        bring(url, chosen.prepare)


if __name__ == "__main__":
    main()
