"""``anomaly evaluate``: how well the detector finds faults, and what weekly retraining would do."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anomaly.cli.console import AsJson, connect, notes, print_json, print_table, say
from anomaly.errors import SettingsError
from anomaly.settings import MOST_ALERTS, load_settings
from anomaly.windows import Window

if TYPE_CHECKING:  # an evaluation imports scikit-learn, and no other command should wait for that
    from anomaly.evaluation.reading_sets import ReadingSet
    from anomaly.evaluation.report import EvaluationReport


def evaluate(
    budgets: Annotated[
        str | None,
        typer.Option(
            help="Acceptable alerts per machine and week, separated by commas; default: 0.5,1,3."
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            help="Readings with a column `label` (0 or 1): a CSV file, or a table or view of the"
            " database, written as schema.table.",
        ),
    ] = None,
    sets: Annotated[
        Path | None,
        typer.Option(
            help="TOML file that names several files of readings: all are evaluated, with both"
            " kinds of injected faults. Needs no database.",
        ),
    ] = None,
    replay: Annotated[
        bool,
        typer.Option("--replay", help="Instead: retrain every week, and show what the gate does."),
    ] = False,
    gate: Annotated[
        bool,
        typer.Option("--gate/--no-gate", help="With --replay: whether the gate may refuse."),
    ] = True,
    leave_out: Annotated[
        bool,
        typer.Option(
            "--leave-out", help="With --sets: leave out one signal or rule at a time; no baselines."
        ),
    ] = False,
    start: Annotated[str | None, typer.Option(help="Default: the first reading.")] = None,
    end: Annotated[str | None, typer.Option(help="End, not included.")] = None,
    machines: Annotated[
        str, typer.Option(help="Ids separated by commas; default: all that change.")
    ] = "",
    seeds: Annotated[
        int | None,
        typer.Option(help="How often faults are injected into each test week; default: 40.", min=1),
    ] = None,
    weeks: Annotated[
        int | None,
        typer.Option(help="With --sets: test weeks per set, spread over it; default: 12.", min=1),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="PNG, SVG or PDF: recall against false alerts.")
    ] = None,
    scores: Annotated[
        Path | None, typer.Option(help="NPZ of the test weeks' scores and labels, for `make vus`.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Evaluate the detector `signals` and baselines, on injected faults or on labels.

    Example: anomaly evaluate --budgets 0.5,1
    """
    asked = _budgets(budgets or "0.5,1,3")
    _go_alone("--labels", labels, **{"--sets": sets, "--replay": replay})
    part = {"--start": start, "--end": end, "--machines": machines}
    _go_alone("--labels", labels, **part, **{"--seeds": seeds, "--weeks": weeks})
    _go_alone("--sets", sets, **part)
    files = {"--picture": picture, "--scores": scores}
    judged = {"--budgets": budgets, "--seeds": seeds, "--weeks": weeks}
    _go_alone("--replay", replay, **files, **judged)
    _go_alone("--sets", sets, **files)
    if not gate and not replay:
        raise SettingsError("--no-gate goes with --replay: nothing else has a gate")
    if weeks and sets is None:
        raise SettingsError("--weeks goes with --sets: name the sets in a TOML file")
    if leave_out and (sets is None or replay):
        raise SettingsError("--leave-out goes with --sets and without --replay: give --sets")
    if replay:
        return _replay(_sets(sets, start, end, machines), gate, as_json)
    if sets is not None:
        return _evaluate_sets(sets, asked, seeds or 40, weeks or 12, leave_out, as_json)
    _check_files(picture, scores)
    report = _report(labels, start, end, machines, asked, seeds or 40, scores is not None)
    if as_json:
        print_json(report.as_dict())
    else:
        for table in report.tables():
            print_table(table)
    if picture is not None:
        say(f"picture: {report.picture(picture)}", to=notes)
    if scores is not None:
        written = report.write_scores(scores, load_settings().meter.interval_minutes)
        say(f"scores: {written}; VUS-PR: make vus SCORES={written}", to=notes)


def _report(
    labels: str | None,
    start: str | None,
    end: str | None,
    machines: str,
    budgets: list[float],
    seeds: int,
    keep_scores: bool,
) -> "EvaluationReport":
    from anomaly.evaluation.evaluate import evaluate_deployment, evaluate_labels
    from anomaly.evaluation.labelled_readings import is_csv

    if labels is not None:
        database, settings = (None, load_settings()) if is_csv(labels) else connect()
        return evaluate_labels(labels, database, settings, budgets=budgets, keep_scores=keep_scores)
    database, settings = connect()
    return evaluate_deployment(
        database,
        settings,
        datetime.now(UTC),
        window=_evaluation_window(start, end),
        machines=_machine_ids(machines),
        budgets=budgets,
        seeds=seeds,
        keep_scores=keep_scores,
    )


def _evaluate_sets(
    file: Path, budgets: list[float], seeds: int, weeks: int, leave_out: bool, as_json: bool
) -> None:
    from anomaly.evaluation.evaluate import evaluate_sets
    from anomaly.evaluation.reading_sets import read_sets

    sets = read_sets(file, load_settings())
    found = evaluate_sets(sets, budgets=budgets, seeds=seeds, weeks=weeks, leave_out=leave_out)
    if as_json:
        return print_json(found.as_dict())
    for table in found.tables():
        print_table(table)


def _replay(sets: "list[ReadingSet]", gate: bool, as_json: bool) -> None:
    from anomaly.lifecycle.replay import replay_sets, summary

    found = replay_sets(sets, gated=gate)
    if as_json:
        return print_json([one.as_dict() for one in found])
    for one in found:
        print_table(one.table())
    print_table(summary(found))


def _sets(
    file: Path | None, start: str | None, end: str | None, machines: str
) -> "list[ReadingSet]":
    """The sets of a TOML file, or the readings of the meter table as one set."""
    from anomaly.evaluation.evaluate import deployment_set
    from anomaly.evaluation.reading_sets import read_sets

    if file is not None:
        return read_sets(file, load_settings())
    database, settings = connect()
    window, ids = _evaluation_window(start, end), _machine_ids(machines)
    return [deployment_set(database, settings, datetime.now(UTC), window=window, machines=ids)]


def _go_alone(option: str, given: object, **others: object) -> None:
    """Refuse options that say nothing beside another."""
    beside = [name for name, value in others.items() if value]
    if given and beside:
        raise SettingsError(f"{' and '.join(beside)} cannot go with {option}: leave one out")


def _check_files(picture: Path | None, scores: Path | None) -> None:
    """Refuse files that cannot be written, before the long work begins."""
    from anomaly.evaluation.report import check_picture

    _check_folder("--picture", picture)
    _check_folder("--scores", scores)
    if picture is not None:
        check_picture(picture)


def _evaluation_window(start: str | None, end: str | None) -> Window | None:
    if not start and not end:
        return None
    if not start or not end:
        raise SettingsError("--start and --end go together: give both, or neither for everything")
    return Window.parse(start, end)


def _machine_ids(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",") if part]
    except ValueError:
        raise SettingsError(f"--machines is {text!r}: write ids by comma, e.g. 1,2,3") from None


def _check_folder(option: str, file: Path | None) -> None:
    """Refuse a file that cannot be written, before the long work begins."""
    if file is not None and not file.parent.is_dir():
        raise SettingsError(f"{option} is {str(file)!r}: there is no folder {file.parent}, make it")
    if file is not None and file.is_dir():
        raise SettingsError(f"{option} is {str(file)!r}, a folder: write the name of a file")


def _budgets(text: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(0 < budget <= MOST_ALERTS for budget in found):
        raise SettingsError(
            f"--budgets is {text!r}: write numbers above 0, {MOST_ALERTS:g} at most, e.g. 0.5,1,3"
        )
    return found
