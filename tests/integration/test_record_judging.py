"""A record is judged as the scheduled scoring judges its reading, once the meter table has it."""

from datetime import timedelta

import pandas as pd
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from psycopg2 import errors as pg

from anomaly.database.connection import Database
from anomaly.errors import NoModelError, RecordError
from anomaly.scoring.record_judging import RecordJudge
from anomaly.windows import Window
from deployment import (
    QUARTER,
    at,
    counters,
    execute,
    insert,
    rows,
    score,
    tick,
    train,
    train_in_force,
    verdicts,
)

DAY = 96
LEARNT = 8 * DAY
"""Quarter-hours that are in the table, and scored, before a record comes."""
STATED = (
    "reading", "power_kw", "power_diff", "anomaly_score", "threshold", "anomaly", "reason",
    "quality", "model_version", "expected_kw", "energy_kwh", "energy_hours",
)  # fmt: skip


def records(frame: pd.DataFrame) -> list[dict[str, object]]:
    """Rows of the meter table as people send them."""
    texts = frame.assign(utc_timestamp=[f"{t:%Y-%m-%d %H:%M:%S}" for t in frame["utc_timestamp"]])
    return texts.astype(object).where(texts.notna(), None).to_dict("records")


def told(found: pd.DataFrame | None) -> dict[tuple[int, object], dict[str, object]]:
    """Verdicts by machine and time, as the database has them."""
    plain = found.astype(object).where(found.notna(), None)
    return {
        (row["machine_id"], row["utc_timestamp"].to_pydatetime()): {n: row[n] for n in STATED}
        for row in plain.to_dict("records")
    }


def stored(database, found) -> dict[tuple[int, object], dict[str, object]]:
    """The same verdicts as the scheduled scoring wrote them."""
    every = verdicts(database)
    return {key: {name: every[key][name] for name in STATED} for key in told(found)}


@pytest.fixture
def plant(database, settings):
    """Eight days of two machines in the table, learnt and scored."""
    insert(database, counters(LEARNT))
    train(database, settings, LEARNT)
    score(database, settings, 0, LEARNT)
    return database


@pytest.fixture(params=["prototype", "signals"])
def detecting(request, settings):
    return settings.changed(detector=request.param)


def later(odd: dict[tuple[int, int], float | None], quarters: int) -> pd.DataFrame:
    """Readings after those that are learnt; `odd` by quarter and machine, added to a counter."""
    frame = counters(LEARNT + quarters).iloc[LEARNT:].reset_index(drop=True)
    for (quarter, machine), more in odd.items():
        column = f"machine_{machine}"
        frame.loc[quarter, column] = None if more is None else frame.loc[quarter, column] + more
    return frame


def test_one_record_gets_the_verdict_that_the_next_tick_writes(database, detecting):
    insert(database, counters(LEARNT))
    train(database, detecting, LEARNT)
    score(database, detecting, 0, LEARNT)
    new = later({(0, 1): 25.0}, 1)

    found = RecordJudge(database, detecting).judge(records(new))

    assert rows(database, "SELECT max(utc_timestamp) FROM anomaly.meter_readings") == [
        (at(LEARNT - 1),)
    ]
    insert(database, new)
    tick(database, detecting, LEARNT + 1)
    assert told(found) == stored(database, found)
    assert told(found)[1, at(LEARNT)]["anomaly"] == 1
    assert told(found)[2, at(LEARNT)]["power_diff"] > 0  # the prototype saw a change of 0


CORRECT = (
    "INSERT INTO anomaly.meter_readings AS r (utc_timestamp, machine_1, machine_2)"
    " VALUES (CAST(:utc_timestamp AS timestamp) AT TIME ZONE 'UTC', :machine_1, :machine_2)"
    " ON CONFLICT (utc_timestamp) DO UPDATE"
    " SET machine_1 = coalesce(excluded.machine_1, r.machine_1),"
    "     machine_2 = coalesce(excluded.machine_2, r.machine_2)"
)
ODD = st.dictionaries(
    st.tuples(st.integers(0, 11), st.sampled_from([1, 2])),
    st.none() | st.sampled_from([-1e3, -3.0, 0.001, 9.0, 80.0, 1e13]),
    max_size=6,
)


@pytest.mark.parametrize("kind", ["energy_kwh", "power_w"])
def test_any_batch_gets_the_verdicts_that_scoring_writes(postgres, migrated, settings, kind):
    """Dropped rows, late rows in any order, corrections, gaps, falls and leaps."""
    asked = settings.changed(detector="signals", reading_kind=kind)
    name = f"batches_{kind}"
    postgres.create_database(name, template=migrated)
    base = Database(postgres.url(name), asked.database)
    insert(base, counters(LEARNT))
    train(base, asked, LEARNT)
    score(base, asked, 0, LEARNT)
    judge = RecordJudge(base, asked)

    @hypothesis_settings(
        max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    @given(odd=ODD, kept=st.sets(st.integers(0, 11), min_size=1), back=st.sampled_from([0, 5, 700]))
    def check(odd, kept, back):
        rows_handed = later(odd, 12).iloc[sorted(kept, reverse=True)]
        # Some correct what the table has.
        moved = rows_handed.assign(utc_timestamp=rows_handed["utc_timestamp"] - back * QUARTER)
        found = judge.judge(records(moved))
        base.dispose()  # a database that is copied must not be in use
        copy = f"{name}_copy"
        postgres.create_database(copy, template=name)
        table = Database(postgres.url(copy), asked.database)
        try:
            moments = [moment.to_pydatetime() for moment in moved["utc_timestamp"]]
            for row in records(moved):
                execute(table, CORRECT, **row)  # null says nothing of what the table has
            first, last = (int((m - at(0)) / QUARTER) for m in (min(moments), max(moments)))
            score(table, asked, first, last + 1)
            if found is None:
                assert moved[["machine_1", "machine_2"]].isna().all(axis=None)
            else:
                assert told(found) == stored(table, found)
        finally:
            table.dispose()
            postgres.drop_database(copy)

    check()
    base.dispose()
    postgres.drop_database(name)


@pytest.mark.parametrize("detector", ["prototype", "signals"])
def test_what_the_table_has_between_two_groups_of_records_counts(database, settings, detector):
    """The first group is no reason to overlook what came after it."""
    asked = settings.changed(detector=detector)
    insert(database, counters(LEARNT + 200))
    train(database, asked, LEARNT)
    score(database, asked, 0, LEARNT + 200)
    every = counters(LEARNT + 401)
    sent = every.iloc[[LEARNT + 160, LEARNT + 400]]

    judge = RecordJudge(database, asked)
    both, alone = judge.judge(records(sent)), judge.judge(records(sent.tail(1)))

    insert(database, sent.tail(1))
    score(database, asked, LEARNT + 400, LEARNT + 401)
    assert told(both) == stored(database, both)
    assert told(alone).items() <= told(both).items()


def test_an_emptied_table_has_its_past_in_its_verdicts(plant, settings):
    new = later({(1, 1): 9.0}, 2)
    execute(plant, "DELETE FROM anomaly.meter_readings")

    found = RecordJudge(plant, settings).judge(records(new))

    insert(plant, new)
    score(plant, settings, LEARNT, LEARNT + 2)
    assert told(found) == stored(plant, found)
    assert "first" not in found["quality"].tolist()


@pytest.mark.parametrize("label", ["start", "end"])
def test_a_long_table_is_asked_too_whatever_end_its_times_name(database, settings, label):
    names = {"source_table": "long", "source_layout": "long", "timestamp_label": label}
    asked = settings.changed(detector="signals", **names)
    execute(
        database,
        "CREATE TABLE anomaly.long (machine_id integer, utc_timestamp timestamptz, reading float8)",
    )
    execute(database, "GRANT SELECT ON anomaly.long TO anomaly_source")
    shift = timedelta(minutes=15) * (label == "end")

    def add(frame):
        long = frame.melt("utc_timestamp", var_name="machine", value_name="reading")
        for row in long.to_dict("records"):
            execute(
                database,
                "INSERT INTO anomaly.long VALUES (:m, :t, :r)",
                m=int(row["machine"][8:]),
                t=row["utc_timestamp"] + shift,
                r=row["reading"],
            )

    add(counters(LEARNT))
    train(database, asked, LEARNT)
    score(database, asked, 0, LEARNT)
    new = later({(1, 2): 40.0}, 3)

    sent = new.assign(utc_timestamp=new["utc_timestamp"] + shift)
    found = RecordJudge(database, asked).judge(records(sent))

    add(new)
    score(database, asked, LEARNT, LEARNT + 3)
    assert told(found) == stored(database, found)
    assert len(found) == 6


def test_a_purged_past_says_as_much_as_it_did(plant, settings):
    new = later({(0, 1): 25.0}, 2)
    execute(plant, "DELETE FROM anomaly.meter_readings WHERE utc_timestamp < :t", t=at(LEARNT - 3))
    judge = RecordJudge(plant, settings)
    before = judge.judge(records(counters(LEARNT).iloc[[LEARNT - 50]]))  # older than the source

    found = judge.judge(records(new))

    insert(plant, new)
    score(plant, settings, LEARNT, LEARNT + 2)
    assert told(found) == stored(plant, found)
    assert told(before) == stored(plant, before)
    assert len(before) == 2


def test_earlier_records_of_the_request_stand_in_for_the_table(plant, settings, database):
    new = later({(3, 1): 25.0}, 4)
    every = counters(LEARNT)

    found = RecordJudge(plant, settings).judge(records(new), records(every))
    alone = RecordJudge(plant, settings).judge(records(new.tail(1)), records(new.head(3)))
    execute(plant, "DELETE FROM anomaly.meter_readings")
    without = RecordJudge(plant, settings).judge(records(new), records(every))

    pd.testing.assert_frame_equal(found, without)
    insert(plant, pd.concat([every, new]))
    score(plant, settings, LEARNT, LEARNT + 4)
    assert told(found) == stored(plant, found)
    assert (
        told(alone).items() <= stored(plant, found).items()
    )  # the prototype's forest looks back 1


def test_the_version_of_each_time_judges_it_and_a_promotion_is_picked_up(plant, settings):
    judge = RecordJudge(plant, settings)
    judge.refresh()
    first = judge.version
    train_in_force(plant, settings, Window(at(DAY), at(LEARNT)))  # from the next reading on
    pair = pd.concat([counters(LEARNT).tail(1), later({}, 1)])
    assert judge.judge(records(pair))["model_version"].unique().tolist() == [first]

    judge.refresh()

    found = judge.judge(records(pair))
    assert found["model_version"].tolist() == [first, first + 1] * 2
    found = judge.judge(records(pair), previous=[])
    assert found["model_version"].tolist() == [first, first + 1] * 2


def test_of_doubled_records_the_higher_one_counts_and_says_so_on_every_path(plant, settings):
    new = later({}, 1)
    twice = pd.concat([new, new.assign(machine_1=new["machine_1"] - 1)])
    judge = RecordJudge(plant, settings)

    for found in (judge.judge(records(twice)), judge.judge(records(twice), previous=[])):
        assert found["reading"].tolist() == new[["machine_1", "machine_2"]].iloc[0].tolist()
    alone = records(twice[["utc_timestamp", "machine_1"]])
    assert judge.judge(alone)["quality"].tolist() == ["duplicate"]
    assert judge.judge(records(twice))["quality"].tolist() == ["duplicate"] * 2


def test_a_machine_that_the_table_does_not_have_is_new(plant, settings):
    new = later({}, 1).assign(machine_7=3.0)

    found = RecordJudge(plant, settings).judge(records(new[["utc_timestamp", "machine_7"]]))

    assert found[["machine_id", "quality"]].to_numpy().tolist() == [[7, "first"]]


def test_records_years_apart_are_judged_without_the_time_between(plant, settings):
    read = []
    judge = RecordJudge(plant, settings)
    source = judge._reader.source.read
    judge._reader.source.read = lambda *asked: read.append(asked[2]) or source(*asked)
    apart = later({}, 1).assign(utc_timestamp=at(LEARNT) + 400 * DAY * QUARTER)

    found = judge.judge(records(pd.concat([later({}, 1), apart])))

    assert len(found) == 4
    assert max(window.end - window.start for window in read) < timedelta(days=10)
    many = [later({}, 1).assign(utc_timestamp=at(LEARNT + 800 * n)) for n in range(60)]
    with pytest.raises(RecordError, match="spread over 60 times that are days apart"):
        judge.judge(records(pd.concat(many)))
    with pytest.raises(TimeoutError):
        judge.judge(records(later({}, 1)), deadline=0.0)


def test_nothing_is_judged_without_a_model_and_nothing_without_a_reading(database, settings):
    insert(database, counters(4))
    judge = RecordJudge(database, settings)

    assert judge.judge(records(counters(1).assign(machine_1=None, machine_2=None))) is None
    assert judge.judge([]) is None
    with pytest.raises(NoModelError, match="no model version is in force"):
        judge.judge(records(counters(1)))


def test_the_meter_table_is_read_as_the_role_of_the_api(plant, settings):
    right = "EXECUTE ON FUNCTION anomaly_reading.read_source(text)"
    execute(plant, f"REVOKE {right} FROM anomaly_api")
    with pytest.raises(Exception, match="permission denied") as refusal:
        RecordJudge(plant, settings).judge(records(later({}, 1)))
    assert isinstance(getattr(refusal.value, "orig", refusal.value), pg.InsufficientPrivilege)


def test_a_naive_time_is_utc_whatever_zone_the_meter_table_has(plant, settings):
    abroad = RecordJudge(plant, settings.changed(source_timezone="Europe/Berlin"))

    found = abroad.judge(records(later({}, 1)))

    assert found["utc_timestamp"].unique().tolist() == [pd.Timestamp(at(LEARNT))]
