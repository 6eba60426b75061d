"""Verdicts are a pure function of the raw readings and the version map."""

import math
import pickle
import shutil
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st
from hypothesis_profiles import PROPERTY

import anomaly.scoring.scorer
import oracle
from anomaly.database.connection import Database
from anomaly.database.scoring_runs import draw_token
from anomaly.demo.embedded_postgres import EmbeddedPostgres
from anomaly.errors import ArtefactError, StaleAttemptError
from anomaly.models.artefacts import Artefact, Registry
from anomaly.scoring.scorer import Scorer
from anomaly.windows import Window
from oracle_deployment import (
    BACKFILL,
    BASE,
    LOCAL_ENDS,
    LONG,
    MEGAWATT_HOURS,
    PER_INTERVAL,
    QUARTER,
    SIGNALS,
    TESTS,
    TODAY,
    TODAY_BY_SIGNALS,
    UNKEYED,
    WATTS,
    WIDE,
    Deployment,
    Layout,
    Record,
    differences,
)

RANGE = timedelta(days=3)
END = BASE + RANGE

# Readings ---------------------------------------------------------------

GAPS = st.sampled_from(
    [15] * 12 + [30, 22, 7, 5, 1, 120, 24 * 60, 24 * 60 + 15, 30 * 60, 30 * 60 + 1]
)
CHANGES = st.one_of(
    st.sampled_from([0.0, 0.0, 0.0, 0.25, 1.1, 2.0, 14.9, 15.1, 500.0, -3.0, -990.5, -999.0]),
    st.floats(-1e4, 1e4).map(lambda change: change + 0.0),
)
HOLES = st.sampled_from([None, math.nan, math.inf, -math.inf])
STEPS = st.one_of(
    st.tuples(st.just(1), GAPS, CHANGES),
    st.tuples(
        st.one_of(st.integers(3, 30), st.just(110)), st.just(15), st.sampled_from([0.0, 0.0, 0.7])
    ),
    st.tuples(st.just(1), GAPS, HOLES),
)
EXCURSIONS = st.tuples(
    st.sampled_from([1, 1, 2, 8, 30, 97]),
    st.sampled_from([0.0, 5.0, -1.0, 160.0, 2.0**32 - 1, 1e300, None]),
)
"""For so many readings a meter shows something else than it has counted; None: it is frozen."""
SENT_AGAIN = timedelta(seconds=2)


@st.composite
def series(draw: st.DrawFn) -> dict[datetime, float | None]:
    """Readings of a machine: flat runs, gaps, resets, roll-overs, holes, odd times.

    Some are wrong for a while before the counter comes back, some are sent again.
    """
    at = BASE + timedelta(minutes=draw(st.sampled_from([0, 0, 0, 7, 45])))
    value, readings = 100.0, {}
    for step in draw(st.lists(st.one_of(STEPS, STEPS, EXCURSIONS), min_size=1, max_size=14)):
        if len(step) == 2:
            times, wrong = step
            shown = value if wrong is None else wrong
            for _ in range(times):
                value += 1.1
                readings[at] = shown
                at += QUARTER
            readings[at] = readings[at + SENT_AGAIN] = value
            at += QUARTER
            continue
        times, gap, change = step
        for _ in range(times):
            finite = change is not None and math.isfinite(change)
            value += change if finite else 0.0
            readings[at] = value if finite else change
            at += timedelta(minutes=gap)
    return {at: value for at, value in readings.items() if at < END}


@st.composite
def meter_tables(draw: st.DrawFn, layout: Layout) -> list[Record]:
    """Rows of a meter table, duplicated where it has no key."""
    columns = {
        key: {at: _in_unit(value, layout) for at, value in draw(series()).items()}
        for key in layout.keys
    }
    if layout.wide:
        records = [
            Record(at, {key: column[at] for key, column in columns.items() if at in column}, BASE)
            for at in sorted(set().union(*columns.values()))
        ]
    else:
        records = [
            Record(at, {key: value}, BASE)
            for key, column in columns.items()
            for at, value in column.items()
        ]
    if not layout.unique and records:
        records += draw(duplicates(records))
    return records


def _in_unit(kwh: float | None, layout: Layout) -> float | None:
    return None if kwh is None else kwh * layout.per_kwh


@st.composite
def duplicates(draw: st.DrawFn, records: list[Record]) -> list[Record]:
    """Rows that claim the place of others, written before, with or after them."""
    claims = st.tuples(
        st.sampled_from(records),
        st.one_of(st.none(), st.sampled_from([0.0, 1.1, -3.0, math.nan])),
        st.sampled_from([None, BASE - QUARTER, BASE, BASE, BASE + QUARTER]),
    )
    return [
        Record(
            rival.at,
            {key: _changed(value, change) for key, value in rival.cells.items()},
            ingested_at,
        )
        for rival, change, ingested_at in draw(st.lists(claims, max_size=6))
    ]


def _changed(value: float | None, change: float | None) -> float | None:
    return None if value is None or change is None else value + change


@st.composite
def cuts(draw: st.DrawFn) -> list[tuple[datetime, datetime]]:
    """The range cut into windows, at odd times too, in any order."""
    minutes = st.integers(1, RANGE // timedelta(minutes=1) - 1)
    inner = draw(st.lists(minutes, max_size=5, unique=True))
    bounds = [BASE, *(BASE + timedelta(minutes=minute) for minute in sorted(inner)), END]
    return draw(st.permutations(list(pairwise(bounds))))


BOUNDARIES = st.integers(0, RANGE // QUARTER).map(lambda quarters: BASE + quarters * QUARTER)

# Deployments --------------------------------------------------------------


@pytest.fixture(scope="module")
def deploy(
    postgres: EmbeddedPostgres, migrated: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[Layout], Deployment]]:
    """Return a function that gives the module's deployment of a layout."""
    made: dict[str, tuple[str, Deployment]] = {}

    def get(layout: Layout) -> Deployment:
        if layout.name not in made:
            name = f"test_{uuid.uuid4().hex[:12]}"
            postgres.create_database(name, template=migrated)
            models = tmp_path_factory.mktemp("models")
            made[layout.name] = name, Deployment(postgres, name, layout, models)
        deployment = made[layout.name][1]
        deployment.reset()
        return deployment

    yield get
    for name, deployment in made.values():
        deployment.close()
        postgres.drop_database(name)


@pytest.fixture
def wide(deploy: Callable[[Layout], Deployment]) -> Deployment:
    return deploy(WIDE)


def two_versions(deployment: Deployment, boundary: datetime) -> list[oracle.Entry]:
    """Put version 2 in force from `boundary` on, version 1 before."""
    deployment.put_in_force(2, boundary, None)
    return [oracle.Entry(None, boundary, 1), oracle.Entry(boundary, None, 2)]


def assert_right(
    deployment: Deployment,
    records: list[Record],
    version_map: list[oracle.Entry] | None = None,
    due: datetime = END,
) -> None:
    """Compare every verdict bit for bit with the oracle's, and with that of a fresh start.

    The oracle knows the scores of the prototype's detector only, and gives no reasons.
    """
    entries = version_map or [oracle.Entry(None, None, 1)]
    assert not differences(deployment.results(), deployment.expected(records, entries, due=due))
    assert deployment.wrong_sums() == []
    before = deployment.verdicts()
    assert deployment.incidents() == deployment.expected_incidents()
    assert _text(before) == _text(deployment.scored_afresh(BASE - QUARTER, due))
    assert deployment.incidents() == deployment.expected_incidents()


def _text(verdicts: dict[oracle.Key, tuple[Any, ...]]) -> list[str]:
    """Verdicts in an order and a form that tells every bit apart."""
    return [repr(item) for item in sorted(verdicts.items())]


# 1. Backfill and live runs agree -------------------------------------------


@pytest.mark.parametrize(
    "layout",
    [
        WIDE, UNKEYED, LONG, WATTS, LOCAL_ENDS, SIGNALS, PER_INTERVAL, MEGAWATT_HOURS, TODAY,
        TODAY_BY_SIGNALS,
    ],
    ids=lambda layout: layout.name,
)  # fmt: skip
@PROPERTY
@given(data=st.data())
def test_a_backfill_gives_the_verdicts_of_the_oracle_however_it_is_cut(
    deploy: Callable[[Layout], Deployment], layout: Layout, data: st.DataObject
) -> None:
    deployment = deploy(layout)
    records = data.draw(meter_tables(layout), "rows")
    deployment.write(records)
    version_map = two_versions(deployment, data.draw(BOUNDARIES, "boundary"))

    for start, end in data.draw(cuts(), "windows"):
        deployment.score(start, end)

    assert_right(deployment, records, version_map)
    for quality in {verdict.quality for verdict in deployment.results().values()}:
        event(quality)


@pytest.mark.parametrize("layout", [WIDE, LONG, SIGNALS, TODAY], ids=lambda layout: layout.name)
@PROPERTY
@given(data=st.data())
def test_live_ticks_give_the_verdicts_of_a_backfill(
    deploy: Callable[[Layout], Deployment], layout: Layout, data: st.DataObject
) -> None:
    deployment = deploy(layout)
    records = data.draw(meter_tables(layout), "rows")
    deployment.write(records)
    version_map = two_versions(deployment, data.draw(BOUNDARIES, "boundary"))
    steps = data.draw(st.lists(st.sampled_from([1, 1, 4, 40]), max_size=6), "intervals")

    deployment.tick(BASE + QUARTER)
    now = BASE + QUARTER
    for now in [BASE + sum(steps[: i + 1]) * QUARTER for i in range(1, len(steps))] + [END]:
        deployment.tick(now)
    assert_right(deployment, records, version_map)


# 2. Writing again changes nothing ------------------------------------------


@PROPERTY
@given(data=st.data())
def test_scoring_a_window_again_touches_no_row(wide: Deployment, data: st.DataObject) -> None:
    wide.reset()
    wide.write(data.draw(meter_tables(WIDE), "rows"))
    wide.score(BASE, END)
    before = _physical_rows(wide)

    for start, end in data.draw(cuts(), "windows"):
        wide.score(start, end)
    wide.reconciler.reconcile(Window(BASE, END), TESTS, allow_retract=True)

    assert _physical_rows(wide) == before
    assert wide.execute("SELECT count(*) FROM anomaly.anomaly_results_history") == [(0,)]


def _physical_rows(deployment: Deployment) -> list[tuple[Any, ...]]:
    return sorted(
        deployment.execute(
            "SELECT tableoid::regclass::text, ctid::text, xmin::text, machine_id, utc_timestamp"
            " FROM anomaly.anomaly_results"
        )
    )


# 4. Late and corrected readings reach what depends on them -------------------


def test_a_correction_met_on_the_way_still_reaches_its_own_successors(wide: Deployment) -> None:
    """Two readings a day apart are corrected; re-scoring the first also meets the second."""
    moments = [BASE, BASE + 4 * 6 * QUARTER, BASE + 4 * 24 * QUARTER, BASE + 4 * 25 * QUARTER]
    first, _, last, _ = records = [
        Record(at, {"machine_1": 10.0 * step}, BASE) for step, at in enumerate(moments)
    ]
    wide.write(records)
    wide.score(BASE, END)
    for record in (first, last):
        record.cells["machine_1"] += 1.0
        wide.rewrite(record)

    for record in (first, last):
        wide.score(record.at, record.at + QUARTER)

    assert_right(wide, records)


@pytest.mark.parametrize("layout", [WIDE, LONG, SIGNALS, TODAY], ids=lambda layout: layout.name)
@PROPERTY
@given(data=st.data())
def test_scoring_only_where_readings_changed_makes_all_verdicts_right(
    deploy: Callable[[Layout], Deployment], layout: Layout, data: st.DataObject
) -> None:
    deployment = deploy(layout)
    records = data.draw(meter_tables(layout).filter(bool), "rows")
    late = data.draw(st.lists(st.sampled_from(records), max_size=2, unique_by=id), "late")
    deployment.write([record for record in records if record not in late])
    deployment.score(BASE, END)
    deployment.write(late)
    moments = {record.at for record in late}
    for _ in range(data.draw(st.integers(0, 3))):
        moments.add(_correct_one(deployment, records, BASE, data))
    moments |= _delete_some(deployment, records, data)

    for moment in data.draw(st.permutations(sorted(moments)), "order"):
        deployment.score(moment, moment + QUARTER)

    assert_right(deployment, records)


def _delete_some(
    deployment: Deployment, records: list[Record], data: st.DataObject
) -> set[datetime]:
    """Delete readings, but neither the first nor the last: what lies beyond may be purged."""
    ends = {min(record.at for record in records), max(record.at for record in records)}
    inner = [record for record in records if record.at not in ends]
    choice = st.lists(st.sampled_from(inner), max_size=3, unique_by=id) if inner else st.just([])
    gone = data.draw(choice, "deleted")
    deployment.remove(gone)
    records[:] = [record for record in records if not any(record is other for other in gone)]
    return {record.at for record in gone}


@pytest.mark.parametrize("layout", [WIDE, LONG, SIGNALS, TODAY], ids=lambda layout: layout.name)
@PROPERTY
@given(data=st.data())
def test_ticks_alone_find_readings_that_came_late_or_were_corrected(
    deploy: Callable[[Layout], Deployment], layout: Layout, data: st.DataObject
) -> None:
    """Wherever they lie: their `ingested_at` says so, and no reconciliation is needed."""
    deployment = deploy(layout)
    everything = data.draw(meter_tables(layout), "rows")
    late = [record for record in everything if data.draw(st.integers(0, 4)) == 0]
    records = [record for record in everything if record not in late]
    records += deployment.records(BASE - QUARTER, [100.0, 100.0, 100.0], BASE)
    deployment.write(records)
    deployment.tick(BASE)

    now = BASE
    for intervals in data.draw(st.lists(st.sampled_from([1, 1, 4, 40]), max_size=6)):
        now += intervals * QUARTER
        deployment.tick(now)
        for record in [late.pop() for _ in range(min(2, len(late)))]:
            record.ingested_at = now
            records.append(record)
            deployment.write([record])
        _correct_one(deployment, records, now, data)
    deployment.tick(now + QUARTER)

    assert_right(deployment, records, due=now + QUARTER)


def _correct_one(
    deployment: Deployment, records: list[Record], now: datetime, data: st.DataObject
) -> datetime:
    """Change a reading, and say when it was metered."""
    record = data.draw(st.sampled_from(records), "corrected")
    key = data.draw(st.sampled_from(sorted(record.cells)))
    record.cells[key] = (_finite(record.cells[key]) or 100.0) + data.draw(CHANGES)
    record.ingested_at = now
    deployment.rewrite(record)
    return record.at


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


# New machines --------------------------------------------------------------


def test_a_machine_that_reading_finds_is_judged_by_the_same_run(
    deploy: Callable[[Layout], Deployment], monkeypatch: pytest.MonkeyPatch
) -> None:
    long = deploy(LONG)
    records = [Record(BASE + step * QUARTER, {"saw": 5.0}, BASE) for step in range(2)]
    _before_reading(long.scorer, monkeypatch, lambda: long.write(records))

    long.score(BASE, END)
    assert_right(long, records)


def test_a_machine_that_appears_while_others_are_registered_waits_for_the_next_run(
    deploy: Callable[[Layout], Deployment], monkeypatch: pytest.MonkeyPatch
) -> None:
    long = deploy(LONG)
    early = [Record(BASE + step * QUARTER, {"saw": 5.0}, BASE) for step in range(2)]
    late = [Record(BASE + step * QUARTER, {"drill": 5.0}, BASE) for step in range(2)]
    long.write(early)
    _before_reading(long.scorer, monkeypatch, lambda: long.write(late), attempt=2)

    long.score(BASE, END)
    assert not differences(long.results(), long.expected(early, due=END))

    long.score(BASE, END)
    assert_right(long, [*early, *late])


def test_an_id_that_is_a_number_taken_already_gets_another_one(
    deploy: Callable[[Layout], Deployment],
) -> None:
    long = deploy(LONG)
    keys = ["1", "2", "01", "drill", "x", "99"]
    records = [Record(BASE, {key: 5.0}, BASE) for key in keys]
    long.write(records)

    long.score(BASE, END)

    ids = dict(long.execute("SELECT source_key, machine_id FROM anomaly.machines"))
    assert set(keys) < set(ids)
    assert ids["99"] == 99
    assert_right(long, records)


# 6. Stale attempts ----------------------------------------------------------


@PROPERTY
@given(data=st.data())
def test_an_attempt_that_was_overtaken_is_read_again(wide: Deployment, data: st.DataObject) -> None:
    """A reading is corrected and published by somebody else between reading and publishing."""
    wide.reset()
    records = data.draw(meter_tables(WIDE).filter(bool), "rows")
    wide.write(records)
    wide.score(BASE, END)
    (start, end), (other_start, other_end) = data.draw(overlapping_windows(), "windows")
    corrected = data.draw(st.sampled_from(records), "corrected")

    def overtake() -> None:
        corrected.cells["machine_1"] = 0.25 + (corrected.cells.get("machine_1") or 0.0)
        wide.rewrite(corrected)
        another = Scorer(wide.database, wide.settings)
        another.score_window(Window(other_start, other_end), BACKFILL)

    with pytest.MonkeyPatch.context() as monkeypatch:
        _after_reading(wide.scorer, monkeypatch, overtake)
        wide.scorer.score_window(Window(start, end), BACKFILL)

    right = wide.expected(records, due=END)
    results = wide.results()
    for key in right:
        if start <= key[1] < end or other_start <= key[1] < other_end:
            assert repr(results.get(key)) == repr(right[key])
    wide.reconciler.reconcile(Window(BASE, END), TESTS, allow_retract=True)
    assert_right(wide, records)


@st.composite
def overlapping_windows(draw: st.DrawFn) -> list[tuple[datetime, datetime]]:
    """Two windows that have a moment in common."""
    quarters = st.integers(0, RANGE // QUARTER)
    bounds = draw(st.lists(quarters, min_size=4, max_size=4, unique=True).map(sorted))
    first, second, third, fourth = (BASE + place * QUARTER for place in bounds)
    return draw(
        st.sampled_from(
            [
                [(first, third), (second, fourth)],
                [(second, fourth), (first, third)],
                [(first, fourth), (second, third)],
                [(second, third), (first, fourth)],
                [(first, fourth), (first, fourth)],
            ]
        )
    )


def test_an_attempt_that_read_before_another_loses_even_with_the_higher_token(
    wide: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = Record(BASE, {"machine_1": 1.0}, BASE)
    wide.write([record])
    older_token = draw_token(wide.database)

    def overtake() -> None:
        record.cells["machine_1"] = 2.0
        wide.rewrite(record)
        with monkeypatch.context() as tokens:
            tokens.setattr(anomaly.scoring.scorer, "draw_token", lambda database: older_token)
            Scorer(wide.database, wide.settings).score_window(Window(BASE, END), BACKFILL)

    _after_reading(wide.scorer, monkeypatch, overtake)
    wide.scorer.score_window(Window(BASE, END), BACKFILL)

    assert_right(wide, [record])


@pytest.mark.parametrize("before", [True, False])
def test_an_attempt_overtaken_while_it_reads_the_verdicts_that_are_there_starts_again(
    wide: Deployment, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    record = Record(BASE, {"machine_1": 1.0}, BASE)
    wide.write([record])
    current = wide.scorer._read_current
    overtaken = []

    def interrupted(*args: Any) -> Any:
        monkeypatch.setattr(wide.scorer, "_read_current", current)
        found = None if before else current(*args)
        record.cells["machine_1"] = 2.0
        wide.rewrite(record)
        overtaken.append(
            Scorer(wide.database, wide.settings).score_window(Window(BASE, END), BACKFILL)
        )
        return current(*args) if found is None else found

    monkeypatch.setattr(wide.scorer, "_read_current", interrupted)
    report = wide.scorer.score_window(Window(BASE, END), BACKFILL)

    assert ([other.inserted for other in overtaken], report.unchanged) == ([1], 1)
    assert_right(wide, [record])


def test_one_connection_is_enough(wide: Deployment) -> None:
    record = Record(BASE, {"machine_1": 1.0}, BASE)
    wide.write([record])
    wide.execute(
        "CREATE ROLE lonely LOGIN PASSWORD 'secret' CONNECTION LIMIT 1;"
        " GRANT anomaly_scorer TO lonely"
    )
    url = wide.database.engine.url.set(username="lonely", password="secret")
    lonely = Database(url.render_as_string(hide_password=False), wide.settings.database)
    try:
        report = Scorer(lonely, wide.settings).score_window(Window(BASE, END), BACKFILL)
    finally:
        lonely.dispose()
        wide.execute("DROP ROLE lonely")

    assert report.inserted == 1
    assert_right(wide, [record])


def test_a_stale_view_of_what_precedes_a_window_is_found_by_reconciling(
    wide: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reading before a window is corrected, and scored, between reading and publishing."""
    records = [Record(BASE + step * QUARTER, {"machine_1": 5.0 * step}, BASE) for step in range(4)]
    wide.write(records)

    def overtake() -> None:
        records[1].cells["machine_1"] = 6.0
        wide.rewrite(records[1])
        Scorer(wide.database, wide.settings).score_window(
            Window(BASE, BASE + 2 * QUARTER), BACKFILL
        )

    _after_reading(wide.scorer, monkeypatch, overtake)
    wide.scorer.score_window(Window(BASE + 2 * QUARTER, END), BACKFILL)
    wide.reconciler.reconcile(Window(BASE, END), TESTS)

    assert_right(wide, records)


def test_a_dozen_overtakings_in_a_row_give_up_without_a_trace(
    wide: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide.write([Record(BASE, {"machine_1": 1.0}, BASE)])
    judge = wide.scorer.judge.verdicts
    overtakings = []

    def overtaken(*args: Any, **kwargs: Any) -> Any:
        overtakings.append(1)
        Scorer(wide.database, wide.settings).score_window(Window(BASE, END), BACKFILL)
        return judge(*args, **kwargs)

    monkeypatch.setattr(wide.scorer.judge, "verdicts", overtaken)
    monkeypatch.setattr("anomaly.scoring.scorer._LONGEST_PAUSE", 0.0)
    with pytest.raises(StaleAttemptError, match="overlapping"):
        wide.scorer.score_window(Window(BASE, END), BACKFILL)

    assert len(overtakings) == 12
    assert wide.execute("SELECT count(*) FROM anomaly.scoring_runs") == [(12,)]


# Promotions -----------------------------------------------------------------


def test_a_promotion_while_a_window_is_read_makes_the_attempt_start_again(
    wide: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [Record(BASE + step * QUARTER, {"machine_1": 5.0 * step}, BASE) for step in range(8)]
    wide.write(records)
    wide.score(BASE, BASE + 4 * QUARTER)

    def promote_another() -> None:
        wide.promote(2)

    _after_reading(wide.scorer, monkeypatch, promote_another)
    wide.scorer.score_window(Window(BASE, END), BACKFILL)

    boundary = BASE + 4 * QUARTER
    version_map = [oracle.Entry(None, boundary, 1), oracle.Entry(boundary, None, 2)]
    assert_right(wide, records, version_map)


# 7. Models are opened only if their bytes match -------------------------------


class Bomb:
    """A pickle that leaves a file behind when it is opened."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


@pytest.fixture
def artefact(wide: Deployment, tmp_path: Path) -> tuple[Registry, Artefact, Path]:
    """A copy of version 1's files, its registered hashes, and its folder."""
    ((folder, sha256),) = wide.execute(
        "SELECT artefact, sha256 FROM anomaly.model_versions WHERE version = 1"
    )
    source = Path(wide.settings.models.models_url) / folder
    copy = tmp_path / "models" / folder
    shutil.copytree(source, copy)
    return Registry(str(tmp_path / "models")), Artefact(folder, sha256), copy


def test_an_untouched_model_is_opened(artefact: tuple[Registry, Artefact, Path]) -> None:
    registry, registered, _ = artefact

    assert registry.load(registered).interval_minutes == 15


def test_a_planted_pickle_is_not_opened(
    artefact: tuple[Registry, Artefact, Path], tmp_path: Path
) -> None:
    registry, registered, folder = artefact
    (folder / "model.joblib").write_bytes(pickle.dumps(Bomb(tmp_path / "boom")))

    with pytest.raises(ArtefactError, match="was changed"):
        registry.load(registered)

    assert not (tmp_path / "boom").exists()
    pickle.loads((folder / "model.joblib").read_bytes())
    assert (tmp_path / "boom").exists(), "the planted pickle is harmless: the test shows nothing"


@PROPERTY
@given(data=st.data())
def test_a_model_with_any_byte_changed_is_refused(
    artefact: tuple[Registry, Artefact, Path], data: st.DataObject
) -> None:
    registry, registered, folder = artefact
    file = folder / data.draw(st.sampled_from(sorted(registered.sha256)))
    content = file.read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    flipped = data.draw(st.integers(1, 255))
    file.write_bytes(content[:place] + bytes([content[place] ^ flipped]) + content[place + 1 :])

    try:
        with pytest.raises(ArtefactError, match="was changed"):
            registry.load(registered)
    finally:
        file.write_bytes(content)


def test_a_model_with_a_file_missing_is_refused(
    artefact: tuple[Registry, Artefact, Path],
) -> None:
    registry, registered, folder = artefact
    (folder / "manifest.json").unlink()

    with pytest.raises(ArtefactError, match=r"manifest\.json"):
        registry.load(registered)


def test_a_model_with_a_file_too_many_is_refused(
    artefact: tuple[Registry, Artefact, Path],
) -> None:
    registry, registered, folder = artefact
    (folder / "sitecustomize.py").write_text("raise SystemExit")

    with pytest.raises(ArtefactError, match=r"sitecustomize\.py"):
        registry.load(registered)


def test_a_model_that_is_gone_is_refused(artefact: tuple[Registry, Artefact, Path]) -> None:
    registry, registered, folder = artefact
    shutil.rmtree(folder)

    with pytest.raises(ArtefactError, match="is missing"):
        registry.load(registered)


def test_a_window_is_left_alone_when_its_model_was_changed(wide: Deployment) -> None:
    record = Record(BASE, {"machine_1": 1.0}, BASE)
    wide.write([record])
    wide.score(BASE, END)
    before = wide.verdicts()
    _register_a_changed_copy(wide)
    wide.put_in_force(4, None, None)

    with pytest.raises(ArtefactError, match="was changed"):
        wide.score(BASE, END)

    assert wide.verdicts() == before


def _register_a_changed_copy(deployment: Deployment) -> None:
    """Register version 1's files as version 4, and change one of them afterwards."""
    ((folder,),) = deployment.execute(
        """
        INSERT INTO anomaly.model_versions
            (version, detector, artefact, sha256, trained_from, trained_to, readings, parameters,
             library_versions, registered_by)
        SELECT 4, detector, replace(artefact, 'v0001', 'v0004'), sha256, trained_from, trained_to,
               readings, parameters, library_versions, 'tests'
          FROM anomaly.model_versions WHERE version = 1
        RETURNING artefact
        """
    )
    copy = Path(deployment.settings.models.models_url) / folder
    shutil.copytree(copy.with_name("v0001"), copy)
    with (copy / "model.joblib").open("ab") as file:
        file.write(b"!")


def _before_reading(
    scorer: Scorer,
    monkeypatch: pytest.MonkeyPatch,
    interruption: Callable[[], object],
    attempt: int = 1,
) -> None:
    """Let something happen once, after an attempt's token is drawn and before it reads."""
    prepare = scorer.reader.prepare
    attempts = iter(range(1, attempt + 1))

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        if next(attempts) < attempt:
            return prepare(*args, **kwargs)
        monkeypatch.setattr(scorer.reader, "prepare", prepare)
        shape = prepare(*args, **kwargs)
        interruption()
        return shape

    monkeypatch.setattr(scorer.reader, "prepare", interrupted)


def _after_reading(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch, interruption: Callable[[], object]
) -> None:
    """Let something happen once, after an attempt has read and before it publishes."""
    judge = scorer.judge.verdicts

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(scorer.judge, "verdicts", judge)
        interruption()
        return judge(*args, **kwargs)

    monkeypatch.setattr(scorer.judge, "verdicts", interrupted)
