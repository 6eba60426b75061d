"""Reading the meter table inside the function that lends no rights, beside a plain COPY."""

from io import BytesIO

from psycopg2.sql import SQL, Composable

from anomaly.database.connection import SCORER, Database, Transaction
from anomaly.database.meter_table import from_source
from benchmarks.deployments import deployment
from benchmarks.figures import Figure, print_table, saying, seconds

REPEATS = 5
_STAMP = "timestamp with time zone"
TABLES = {
    "long table, 700,000 rows": (
        "SELECT '2026-01-01Z'::timestamptz + i / 1000 * interval '15 min' AS t,"
        " i % 1000 AS machine, random() * 100 AS kwh FROM generate_series(0, 699999) AS i",
        [_STAMP, "integer", "double precision"],
    ),
    "wide table, 700 rows of 1,000 machines": (
        "SELECT '2026-01-01Z'::timestamptz + i * interval '15 min' AS t, "
        + ", ".join(f"random() * {machine} AS machine_{machine}" for machine in range(1000))
        + " FROM generate_series(0, 699) AS i",
        [_STAMP, *["double precision"] * 1000],
    ),
}


def measure(database: Database) -> list[Figure]:
    """Copy each table out, by the function and plainly, the quickest of several."""
    figures = []
    for number, (name, (rows, types)) in enumerate(TABLES.items()):
        with database.transaction() as transaction:
            made = "CREATE TABLE public.bench_{0} AS {1}; GRANT SELECT ON public.bench_{0}"
            transaction.execute(SQL(made.format(number, rows) + " TO anomaly_source"))
        with saying(name), database.transaction(SCORER) as transaction:
            query = SQL(f"SELECT * FROM public.bench_{number}")
            ours = _copying(transaction, from_source(transaction, query, types))
            plain = _copying(transaction, query)
        figures.append(Figure.at_most(f"reading a {name}", ours, "s", "plain COPY", plain, None))
    return figures


def _copying(transaction: Transaction, query: Composable) -> float:
    copy = SQL("COPY ({}) TO STDOUT (FORMAT binary)").format(query)

    def once() -> None:
        with transaction.cursor as cursor:
            cursor.copy_expert(copy, BytesIO())

    return min(seconds(once) for _ in range(REPEATS))


if __name__ == "__main__":
    with deployment() as (fresh, _):
        print_table(measure(fresh))
