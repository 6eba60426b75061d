"""Whatever readings do and whenever runs come, reconciled verdicts are the oracle's.

A machine of random steps: readings arrive in order, late, ahead of time and
twice; they are corrected (telling so or not) and deleted; ticks, backfills and
reconciliations run; versions are trained, promoted and rolled back. It keeps
its own list of readings and its own version map.
"""

import math
import sys
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import ClassVar

import pytest
from hypothesis import event
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from hypothesis_profiles import CHOSEN, MACHINE, SIGNALS_MACHINE

from anomaly.demo.embedded_postgres import EmbeddedPostgres
from anomaly.errors import NoModelError, TrainingError
from anomaly.operations.machine_removal import remove_machine
from anomaly.windows import Window
from deployment import train_in_force
from oracle import REACH, Entry, Key, Verdict
from oracle_deployment import (
    BASE,
    LOCAL_NIGHT,
    LONG,
    PER_INTERVAL,
    QUARTER,
    SIGNALS,
    TESTS,
    TODAY,
    UNKEYED,
    WIDE,
    Deployment,
    Layout,
    Record,
    differences,
)

LAYOUTS = (WIDE, UNKEYED, LONG, LOCAL_NIGHT, TODAY, PER_INTERVAL)
"""Of the prototype's detector, every bit of whose verdicts the oracle knows."""
COMMON = ("late", "corrected", "deleted", "promotion")
"""What at least a fifth of the examples must hold."""

PLACES = st.integers(0, 10_000)
CHANGES = st.sampled_from([0.0, 0.0, 0.0, 0.25, 1.1, 2.0, 14.9, 15.1, 500.0, -3.0, -995.0])
HOLES = st.sampled_from([None, math.nan, math.inf, -math.inf])
Changes = tuple[float | None, float | None, float | None]
FEEDS = st.one_of(
    st.lists(st.tuples(*[st.one_of(CHANGES, CHANGES, HOLES)] * 3), min_size=1, max_size=8),
    st.sampled_from([[(0.0, 1.1, 1.1)], [(1.1, 0.0, 1.1)], [(0.7, 0.7, 0.0)]]).map(
        lambda steps: steps * 10
    ),
)
"""What each machine's next readings add to those before: anything, or a meter stands still."""
ODD_TIMES = st.sampled_from([0, 0, 0, 0, 7, 1])


class ResultsMachine(RuleBasedStateMachine):
    """A meter table, a clock and a version map, beside the deployment that follows them."""

    deployments: ClassVar[dict[str, Deployment]] = {}
    layouts: ClassVar[tuple[Layout, ...]] = LAYOUTS
    seen: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.kinds: set[str] = set()
        self.records: list[Record] = []
        self.version_map: list[Entry] = []
        self.scored_to: datetime | None = None
        self.now = self.delivered_to = BASE

    @initialize(
        layout=st.integers(0, 11),
        version=st.sampled_from([1, 1, 1, 2, 2, None]),
        scored=st.sampled_from([True, True, True, False]),
        hours=st.integers(1, 30),
        changes=FEEDS,
        corrected=st.booleans(),
        deleted=st.booleans(),
        place=PLACES,
    )
    def begin(
        self,
        layout: int,
        version: int | None,
        scored: bool,
        hours: int,
        changes: list[Changes],
        corrected: bool,
        deleted: bool,
        place: int,
    ) -> None:
        """Often with a reading that was changed since; the rules alone come to it too rarely."""
        self.layout = self.layouts[layout % len(self.layouts)]
        self.deployment = self.deployments[self.layout.name]
        self.deployment.reset(version)
        self.version_map = [Entry(None, None, version)] if version else []
        self.now = BASE + timedelta(hours=hours)
        steps = [changes[step % len(changes)] for step in range(4 * hours)]
        self._deliver(steps)
        if version and scored:
            self.deployment.score(BASE, self.now)
            self._scored(self.now)
        if corrected:
            self.a_reading_is_corrected(place, 15.1, told=place % 2 == 0)
        if deleted:
            self.readings_are_deleted(place, 1 + place % 3)

    # Readings ---------------------------------------------------------------

    @rule(changes=FEEDS, lost=st.sampled_from([0, 0, 1, 4]))
    def readings_arrive_in_order(self, changes: list[Changes], lost: int) -> None:
        self.delivered_to += lost * QUARTER
        self._deliver(changes)

    @rule(
        place=PLACES,
        machine=st.integers(0, 2),
        odd=ODD_TIMES,
        change=CHANGES,
        times=st.sampled_from([0, 1, 1, 2, 5]),
    )
    def readings_arrive_late(
        self, place: int, machine: int, odd: int, change: float, times: int
    ) -> None:
        key = self.layout.keys[machine]
        odd_time = self._moment(place) + timedelta(minutes=odd)
        for at in [*self._free_moments(key, place)[:times], odd_time]:
            self._fill(at, key, self._plus(self._value_before(at, key), change))

    @rule(place=PLACES, change=st.one_of(HOLES, CHANGES), age=st.sampled_from([None, -1, 0, 0, 1]))
    def a_reading_arrives_twice(self, place: int, change: float | None, age: int | None) -> None:
        if self.layout.unique or not self.records:
            return
        rival = self._record(place)
        if self.layout.is_shown_twice(rival.at):
            return  # two rows of that time are two hours, unless proven otherwise
        self._note("duplicated", rival)
        written = None if age is None else (rival.ingested_at or self.now) + age * QUARTER
        cells = {key: self._plus(old, change) for key, old in rival.cells.items()}
        self._add(Record(rival.at, cells, written))

    @rule(place=PLACES, change=st.one_of(CHANGES, CHANGES, HOLES), told=st.booleans())
    def a_reading_is_corrected(self, place: int, change: float | None, told: bool) -> None:
        if not self.records:
            return
        record = self._record(place, scored=True)
        self._note("corrected", record)
        if not told:
            self._note("corrected in silence", record)
        key = sorted(record.cells)[place % len(record.cells)]
        record.cells[key] = self._plus(record.cells[key] or None, change)
        if told:
            record.ingested_at = self.now
        self.deployment.rewrite(record)

    @rule(place=PLACES, times=st.sampled_from([1, 1, 2, 10]))
    def readings_are_deleted(self, place: int, times: int) -> None:
        if not self.records:
            return
        first = self.records.index(self._record(place, scored=True))
        gone = self.records[first : first + times]
        self._note("deleted", *gone)
        self.records[first : first + times] = []
        self.deployment.remove(gone)

    @rule(place=PLACES)
    def the_past_is_purged(self, place: int) -> None:
        """All that the table holds from before a moment goes; the newest row stays."""
        newest = max((record.at for record in self.records), default=BASE)
        moment = min(self._moment(place), newest)
        gone = [record for record in self.records if record.at < moment]
        self._note("purged", *gone)
        self.records = [record for record in self.records if record.at >= moment]
        self.deployment.remove(gone)

    @rule(place=PLACES)
    def a_reading_is_sent_again_within_seconds(self, place: int) -> None:
        if not self.records:
            return
        record = self._record(place)
        at = record.at + timedelta(seconds=2)
        if all(other.at != at for other in self.records):
            self.kinds.add("sent again")
            self._add(Record(at, dict(record.cells), self.now))

    # Runs -------------------------------------------------------------------

    @rule(
        intervals=st.sampled_from([1, 1, 2, 4, 8, 40, 110]),
        changes=FEEDS,
        lagging=st.booleans(),
    )
    def time_passes_and_a_tick_comes(
        self, intervals: int, changes: list[Changes], lagging: bool
    ) -> None:
        self.now += intervals * QUARTER
        if not lagging:
            self._deliver(changes)
        self._tick()
        if lagging:
            self._deliver(changes)

    @rule(place=PLACES, odd=ODD_TIMES, intervals=st.sampled_from([1, 4, 30, 150]))
    def a_range_is_scored_again(self, place: int, odd: int, intervals: int) -> None:
        start = self._moment(place) + timedelta(minutes=odd)
        end = min(start + intervals * QUARTER, self.now)
        if self.version_map and start < end:
            self.deployment.score(start, end)
            self._scored(end)
            self._check_range(start, end)

    @rule()
    def everything_is_reconciled(self) -> None:
        if not self.version_map:
            return
        self.kinds.add("reconciled")
        self.deployment.reconciler.reconcile(Window(BASE, self.now), TESTS, allow_retract=True)
        ((scored_to,),) = self.deployment.execute(
            "SELECT max(window_end) FROM anomaly.scoring_runs WHERE window_start < window_end"
        )
        assert scored_to is None or scored_to <= self.now
        if scored_to is not None:
            self._scored(scored_to)
        self._check_range(BASE, self.now)

    @rule()
    def a_machine_is_removed(self) -> None:
        """Its readings stay in the meter table: the next run that meets one adds it again."""
        key = self.layout.keys[2]
        known = self.deployment.execute(
            "SELECT machine_id FROM anomaly.machines WHERE source_key = %s", key
        )
        if known:
            self.kinds.add("machine removed")
            remove_machine(self.deployment.database, str(known[0][0]), with_verdicts=True)

    # Versions ----------------------------------------------------------------

    @rule(version=st.sampled_from([1, 2, 3, 1, 2, 3, 1, None]))
    def a_version_is_promoted(self, version: int | None) -> None:
        """One of those trained beforehand, or (rarely) a new one."""
        if version is None:
            self._train()
            return
        self.kinds.add("promotion")
        start = self.deployment.promote(version)
        if self.version_map and self.version_map[-1].version == version:
            self._check_map()  # the version in force stays so
        else:
            self._promoted(version, start)

    @rule(version=st.integers(1, 3), place=PLACES, intervals=st.integers(1, 100))
    def a_version_is_rolled_back(self, version: int, place: int, intervals: int) -> None:
        start = self._moment(place)
        end = min(start + intervals * QUARTER, self.now)
        if self.version_map and start < end:
            self.kinds.add("roll-back")
            self.deployment.put_in_force(version, start, end)
            self._rewrite_map(start, end, version)
            self.deployment.score(start, end)
            self._scored(end)
            self._check_range(start, end)

    # What the machine knows ---------------------------------------------------

    def _tick(self) -> None:
        if not self.version_map:
            with pytest.raises(NoModelError):
                self.deployment.tick(self.now)
            return
        self.deployment.tick(self.now)
        self._scored(self.now)
        lateness = self.deployment.settings.scoring.lateness(QUARTER)
        start = self.now - QUARTER - lateness
        self._check_range(start, self.now, retracted=False)

    def _train(self) -> None:
        database, settings = self.deployment.database, self.deployment.settings
        try:
            report = train_in_force(database, settings, Window(BASE, self.now))
        except TrainingError:
            return
        self.kinds |= {"training", "promotion"}
        self._promoted(report.version, report.effective_from)

    def _deliver(self, steps: list[Changes]) -> None:
        """Add a row a quarter-hour to the end of the meter table, up to an hour ahead."""
        arrived, taken = [], {record.at for record in self.records}
        for changes in steps:
            while self.delivered_to in taken:
                self.delivered_to += QUARTER
            at = self.delivered_to
            if at >= self.now + timedelta(hours=1):
                break
            values = [
                self._plus(self._value_before(at, key), change)
                for key, change in zip(self.layout.keys, changes, strict=True)
            ]
            rows = self.deployment.records(at, values, self.now)
            arrived += rows
            self.records += rows
            self.delivered_to += QUARTER
            self._note("late", *rows)
        self.deployment.write(arrived)

    def _fill(self, at: datetime, key: str, value: float) -> None:
        """Put a reading where there is none: into the row of that time, or a new one."""
        there = [record for record in self.records if record.at == at and key in record.cells]
        if any(record.cells[key] is not None for record in there):
            return
        if there:
            there[0].cells[key], there[0].ingested_at = value, self.now
            self.deployment.rewrite(there[0])
            self._note("late", there[0])
        elif self.layout.wide:
            self._add(Record(at, dict.fromkeys(self.layout.keys) | {key: value}, self.now))
        else:
            self._add(Record(at, {key: value}, self.now))

    def _note(self, kind: str, *records: Record) -> None:
        """Remember that something happened to readings whose time was scored already."""
        if any(map(self._is_scored, records)):
            self.kinds.add(kind)

    def _is_scored(self, record: Record) -> bool:
        return self.scored_to is not None and record.at < self.scored_to

    def _add(self, record: Record) -> None:
        self._note("late", record)
        self.records.append(record)
        self.deployment.write([record])

    def _record(self, place: int, *, scored: bool = False) -> Record:
        """One of the readings; one whose time was scored, if asked for and there is any."""
        asked = [record for record in self.records if scored and self._is_scored(record)]
        return (asked or self.records)[place % len(asked or self.records)]

    def _moment(self, place: int) -> datetime:
        """A quarter-hour between the beginning and now."""
        return BASE + place % max(1, (self.now - BASE) // QUARTER) * QUARTER

    def _free_moments(self, key: str, place: int) -> list[datetime]:
        """Quarter-hours before now at which a machine has no reading, from a place on."""
        taken = {record.at for record in self.records if record.cells.get(key) is not None}
        quarters = range((self.now - BASE) // QUARTER)
        free = [at for quarter in quarters if (at := BASE + quarter * QUARTER) not in taken]
        return free[place % len(free) :] if free else []

    def _value_before(self, at: datetime, key: str) -> float:
        finite = [
            (record.at, value)
            for record in self.records
            if record.at < at and (value := record.cells.get(key)) is not None
            if math.isfinite(value)
        ]
        return max(finite)[1] if finite else 100.0 * self.layout.per_kwh

    def _plus(self, value: float | None, change: float | None) -> float | None:
        """A reading that follows `value` after a change in kWh, or none."""
        if change is None or not math.isfinite(change):
            return change
        known = value is not None and math.isfinite(value)
        return (value if known else 100.0 * self.layout.per_kwh) + change * self.layout.per_kwh

    def _scored(self, end: datetime) -> None:
        self.scored_to = max(end, self.scored_to or end)

    def _promoted(self, version: int, start: datetime | None) -> None:
        """From the first interval boundary that is not yet scored; all time if nothing is."""
        since_base = (self.scored_to - BASE) if self.scored_to else None
        expected = None if since_base is None else BASE - (-since_base // QUARTER) * QUARTER
        assert start == expected
        self._rewrite_map(expected, None, version)

    def _rewrite_map(self, start: datetime | None, end: datetime | None, version: int) -> None:
        pieces = [Entry(start, end, version)]
        for entry in self.version_map:
            if start is not None and (entry.start is None or entry.start < start):
                last = start if entry.end is None else min(start, entry.end)
                pieces.append(Entry(entry.start, last, entry.version))
            if end is not None and (entry.end is None or entry.end > end):
                first = end if entry.start is None else max(end, entry.start)
                pieces.append(Entry(first, entry.end, entry.version))
        self.version_map = sorted(
            pieces, key=lambda entry: entry.start or datetime.min.replace(tzinfo=BASE.tzinfo)
        )
        self._check_map()

    # What must hold -------------------------------------------------------------

    def _check_map(self) -> None:
        rows = self.deployment.execute(
            """
            SELECT nullif(effective_from, '-infinity'), effective_to, version
              FROM anomaly.model_in_force WHERE superseded_at IS NULL ORDER BY effective_from
            """
        )
        assert rows == self.version_map

    def _check_range(self, start: datetime, end: datetime, *, retracted: bool = True) -> None:
        """Verdicts in a range that was just looked at are the oracle's, one a finite reading."""
        results = self.deployment.results()
        right = self.deployment.expected(
            self.records, self.version_map, due=self.now, remembered=self._purged(results)
        )
        self._check_always(results)
        orphans = results.keys() - right.keys()
        if retracted and self.records:
            stamps = [record.at for record in self.records]
            inside = [key for key in orphans if min(stamps) <= key[1] <= max(stamps)]
            assert not [key for key in inside if start <= key[1] < end]
        kept = {key: verdict for key, verdict in results.items() if key not in orphans}
        assert not differences(_within(kept, start, end), _within(right, start, end))

    def _purged(self, results: dict[tuple[int, datetime], Verdict]) -> dict[Key, float]:
        """Readings before the source's first that only their verdicts tell of any more."""
        first = min((record.at for record in self.records), default=None)
        return {
            key: verdict.reading
            for key, verdict in results.items()
            if first is not None and key[1] < first
        }

    def _check_fresh_start(self) -> None:
        """Whatever was done, the verdicts are those of one backfill, reasons and all.

        Where readings were purged at either end of the source, their verdicts stay, and so do
        those that looked back at them; after a fresh start nothing tells of them any more.
        """
        before = self.deployment.verdicts()
        fresh = self.deployment.scored_afresh(BASE, self.now)
        purged = before.keys() - fresh.keys()
        stamps = [record.at for record in self.records]
        if stamps:  # of an emptied table every verdict stays
            assert all(not min(stamps) <= at <= max(stamps) for _, at in purged)
        looks_back = max(2 * REACH, self.deployment.settings.meter.max_gap)
        looked_back = {
            (machine, at)
            for machine, at in fresh
            if any(machine == gone and lost < at <= lost + looks_back for gone, lost in purged)
        }
        compared = sorted(fresh.keys() - looked_back)
        assert [repr(before.get(key)) for key in compared] == [repr(fresh[k]) for k in compared]

    def _check_always(self, results: dict[tuple[int, datetime], Verdict]) -> None:
        """Nothing that is not due, one per reading, each in the ledger; no meter was written."""
        assert all(at < self.now for _, at in results)
        ((rows, unknown),) = self.deployment.execute(
            """
            SELECT count(*), count(*) FILTER (WHERE run_id NOT IN
                                              (SELECT run_id FROM anomaly.scoring_runs))
              FROM anomaly.anomaly_results
            """
        )
        assert (rows, unknown) == (len(results), 0)
        assert self.deployment.incidents() == self.deployment.expected_incidents()
        assert self.deployment.wrong_sums() == []
        if "machine removed" not in self.kinds:  # with its verdicts, which the ledger counts
            assert self.deployment.wrong_history() == []
        assert self.deployment.meter_table() == self.deployment.as_stored(self.records)

    def teardown(self) -> None:
        if sys.exc_info()[0] is None and self.version_map:
            self.everything_is_reconciled()
            self._check_fresh_start()
        for kind in sorted(self.kinds):
            event(kind)
        type(self).seen.update({*self.kinds, "examples"})


def _within(
    verdicts: dict[tuple[int, datetime], Verdict], start: datetime, end: datetime
) -> dict[tuple[int, datetime], Verdict]:
    return {key: verdict for key, verdict in verdicts.items() if start <= key[1] < end}


@pytest.fixture(scope="module")
def deployments(
    postgres: EmbeddedPostgres, migrated: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Make a deployment of each layout for the machine."""
    names = []
    for layout in (*LAYOUTS, SIGNALS):
        names.append(f"test_{uuid.uuid4().hex[:12]}")
        postgres.create_database(names[-1], template=migrated)
        models = tmp_path_factory.mktemp("models")
        ResultsMachine.deployments[layout.name] = Deployment(postgres, names[-1], layout, models)
    yield
    for name, deployment in zip(names, ResultsMachine.deployments.values(), strict=True):
        deployment.close()
        postgres.drop_database(name)


@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("deployments")
class TestResults(ResultsMachine.TestCase):
    settings = MACHINE


class SignalsMachine(ResultsMachine):
    """The same with the detector `signals`, of which the oracle knows all but the scores."""

    layouts = (SIGNALS,)
    seen: ClassVar[Counter[str]] = Counter()


@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("deployments")
class TestSignals(SignalsMachine.TestCase):
    settings = SIGNALS_MACHINE


def test_each_thing_that_may_happen_did_in_a_fifth_of_the_examples() -> None:
    seen = ResultsMachine.seen
    if seen["examples"] < max(250, CHOSEN.machine):
        pytest.skip("too few examples to tell, or the machine above did not run")

    shares = {kind: seen[kind] / seen["examples"] for kind in COMMON}

    assert min(shares.values()) >= 0.2, shares
