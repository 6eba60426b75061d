"""Binary COPY by the column gives back what went in, NULLs and text included."""

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anomaly.database import binary_copy
from deployment import execute, rows

KINDS = (
    ("small", "int2"), ("number", "int4"), ("large", "int8"), ("value", "float8"), ("flag", "bool"),
    ("at", "timestamptz"), ("words", "text"),
)  # fmt: skip
row = st.tuples(
    st.integers(-(2**15), 2**15 - 1),
    st.integers(-(2**31), 2**31 - 1),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=True),
    st.booleans(),
    st.datetimes(pd.Timestamp("1900-01-01"), pd.Timestamp("2200-01-01")),
    st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.lists(row, max_size=12))
def test_any_rows_survive_the_way_into_a_table(database, data):
    execute(database, "DROP TABLE IF EXISTS public.copied")
    execute(
        database,
        "CREATE TABLE public.copied (small int2, number int4, large int8, value float8, flag bool,"
        " at timestamptz, words text)",
    )
    frame = pd.DataFrame(data, columns=[name for name, _ in KINDS])
    frame["at"] = pd.to_datetime(frame["at"], utc=True).astype("datetime64[us, UTC]")
    types = {
        "small": int,
        "number": int,
        "large": int,
        "value": float,
        "flag": bool,
        "words": object,
    }
    frame = frame.astype(types)

    with database.engine.begin() as connection:
        connection.connection.cursor().copy_expert(
            "COPY public.copied FROM STDIN (FORMAT binary)",
            binary_copy.CopyInput(frame, KINDS, rows_at_once=5),
        )

    def comparable(values):
        small, number, large, value, flag, at, words = values
        known = None if value is None or np.isnan(value) else value
        text = words if isinstance(words, str) else None
        return (small, number, large, repr(known), flag, pd.Timestamp(at).timestamp(), repr(text))

    found = sorted(comparable(found) for found in rows(database, "SELECT * FROM public.copied"))
    assert found == sorted(comparable(given) for given in frame.itertuples(index=False))
