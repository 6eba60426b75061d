"""What is new, changed or gone: found in arrays, as Postgres finds it row by row."""

import numpy as np
import pandas as pd
import pytest
from sqlalchemy import text

from anomaly.database.connection import SCORER
from anomaly.database.results import VERDICT_COLUMNS, read_current
from anomaly.readings.quality import QUALITY_NAMES
from anomaly.scoring.comparison import compare_verdicts
from anomaly.windows import Window
from deployment import at, counters, execute, insert, rows, score, train

DAY = 96
KEY = ["machine_id", "utc_timestamp"]
NUMBERS = ["reading", "power_kw", "power_diff", "anomaly_score", "threshold", "expected_kw"]

DIFFERING = f"""
SELECT a.machine_id, a.utc_timestamp, r.machine_id IS NULL,
       r.machine_id IS NOT NULL AND ({
    " OR ".join(f"a.{name} IS DISTINCT FROM r.{name}" for name in VERDICT_COLUMNS)
}),
       r.machine_id IS NOT NULL AND a.reading IS DISTINCT FROM r.reading
  FROM public.attempt AS a LEFT JOIN anomaly.anomaly_results AS r USING (machine_id, utc_timestamp)
 ORDER BY 1, 2
"""
GONE = """
SELECT machine_id, utc_timestamp FROM anomaly.anomaly_results AS r
 WHERE utc_timestamp < :end
   AND NOT EXISTS (SELECT FROM public.attempt AS a WHERE (a.machine_id, a.utc_timestamp)
                                                       = (r.machine_id, r.utc_timestamp))
 ORDER BY 1, 2
"""


@pytest.mark.parametrize(
    ("seed", "machines", "at_once"), [(0, [1, 2], 1000), (1, [1, 2], 1), (2, None, 1)]
)
def test_differences_are_those_that_postgres_finds(
    database, settings, monkeypatch, seed, machines, at_once
):
    monkeypatch.setattr("anomaly.database.results._MACHINES_AT_ONCE", at_once)
    insert(database, counters(3 * DAY))
    train(database, settings, end=2 * DAY)
    score(database, settings, 0, 3 * DAY)
    execute(database, "UPDATE anomaly.anomaly_results SET expected_kw = 5 WHERE machine_id = 1")
    attempt = changed(stored(database, 2 * DAY), np.random.default_rng(seed))
    store(database, attempt)

    with database.transaction(SCORER, read_only=True) as transaction:
        current = read_current(transaction, Window(at(0), at(2 * DAY)), machines)
    found = compare_verdicts(attempt, current)

    ours = attempt[KEY].assign(
        new=found.new, changed=found.changed, reading_changed=found.reading_changed
    )
    expected = rows(database, DIFFERING)
    assert [tuple(row) for row in ours.itertuples(index=False)] == expected
    assert sorted(map(tuple, found.gone[KEY].to_numpy())) == rows(database, GONE, end=at(2 * DAY))
    assert found.current == 2 * 2 * DAY
    for kind in (found.new, found.changed, found.reading_changed):
        assert 0 < kind.sum() < len(attempt)


def stored(database, end):
    """The verdicts up to a quarter-hour, as an attempt has them."""
    columns = [*KEY, *VERDICT_COLUMNS]
    found = rows(
        database,
        f"SELECT {', '.join(columns)} FROM anomaly.anomaly_results WHERE utc_timestamp < :end"
        " ORDER BY 1, 2",
        end=at(end),
    )
    frame = pd.DataFrame(found, columns=columns).astype(dict.fromkeys(NUMBERS, float))
    frame["utc_timestamp"] = frame["utc_timestamp"].astype("datetime64[us, UTC]")
    return frame.astype({"quality": object, "reason": object})


def changed(frame, random):
    """Some rows less, some more, and some cells of the others with another value or none."""
    for name in [*NUMBERS, "anomaly", "model_version", "quality", "reason"]:
        some = frame.index[random.random(len(frame)) < 0.02]
        if name in NUMBERS:
            known = frame.loc[some, name]
            value = np.where(known.isna(), 1.0, np.nextafter(known, np.inf))  # the next there is
            unknown = name not in ("reading", "threshold") and random.random(len(some)) < 0.3
            frame.loc[some, name] = np.where(unknown, np.nan, value)
        elif name == "quality":
            frame.loc[some, name] = random.choice(QUALITY_NAMES, len(some))
        elif name == "reason":
            frame.loc[some, name] = "säge: 3 % above"
        else:
            frame.loc[some, name] = 1 - frame.loc[some, name] + (name == "model_version")
    kept = frame[random.random(len(frame)) < 0.9]
    more = kept.sample(9, random_state=random.integers(99))
    between = more.assign(utc_timestamp=more["utc_timestamp"] + pd.Timedelta(minutes=7))
    return pd.concat([kept, between]).sort_values(KEY, ignore_index=True)


def store(database, attempt):
    """Put an attempt into a table of its own, row by row."""
    names = list(attempt.columns)
    records = attempt.astype(object).where(attempt.notna(), None).to_dict("records")
    with database.engine.begin() as connection:
        connection.execute(
            text(
                f"CREATE TABLE public.attempt AS SELECT {', '.join(names)}"
                "  FROM anomaly.anomaly_results WITH NO DATA"
            )
        )
        values = ", ".join(f":{name}" for name in names)
        connection.execute(
            text(f"INSERT INTO public.attempt ({', '.join(names)}) VALUES ({values})"), records
        )
