"""
### Score a past range again

1. Give a start and an end, trigger, and leave the rest as it is.
2. The preview shows what would change, and writes nothing. If many verdicts would turn into their
   opposite, the run asks first: answer `ask` under Required Actions.
3. The report is in the log of `report`, in the run's note and in `anomaly.backfills`.

**Safe at any time.** A backfill never alerts anybody, and never delays the 15-minute run. Cancel it
(mark the run failed) whenever you like: what is finished stays. To go on, clear the run.
A verdict is a function of the readings and of the version in force at their time, so a backfill over
a range that is right changes nothing. A *version* rewrites the version map for the range, for good.

**When it fails**

| message | what to do |
|---|---|
| of `check_request`, one line that says what is wrong | trigger it again with another form |
| no model version is in force | run the DAG `retrain_model` first |
| chunks are not finished | look at the failed `score_chunk`, then clear it |

Months of days that may hold late or corrected readings: Airflow's own backfill of
`reconcile_scores`. More: `docs/how-to/backfill.md`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import AssetAlias, Context, Param, dag, get_current_context, task

from anomaly.settings import load_settings
from anomaly_wiring import (
    BACKFILLS,
    FIRST_DAY,
    SCORES,
    announce_scores,
    default_args,
    deployment,
    keep_machine_names,
    machine_names,
    requested_by,
    tell_lineage,
)

settings = load_settings()
approval = settings.dags.backfill_approval
at_once = settings.dags.dag_backfill_tasks
NAME = "{{ task.op_kwargs['name'] }}"  # of a chunk: what it covers
REPORTS = AssetAlias("anomaly_backfill_reports")

FORM = {
    "start": Param(
        type="string",
        format="date-time",
        title="Start",
        description="The first moment that is scored.",
    ),
    "end": Param(
        type="string",
        format="date-time",
        title="End",
        description="Not included. What is not due yet is left out.",
    ),
    "machines": Param(
        None,
        type=["null", "array"],
        items={"type": "string", "minLength": 1},
        examples=machine_names(),
        title="Machines",
        description="Empty: all of them. Else names or ids.",
    ),
    "mode": Param(
        "changed",
        type="string",
        enum=["missing", "changed", "everything"],
        values_display={
            "missing": "missing: readings without a verdict, and what they change",
            "changed": "changed: readings without a verdict, and verdicts out of date",
            "everything": "everything: all readings once more",
        },
        title="What is scored",
        description="Out of date: the reading, the version in force or the signals have changed.",
    ),
    "version": Param(
        None,
        type=["null", "integer"],
        minimum=1,
        title="Model version",
        description="Empty: the version that was in force at each reading's time. A number puts that"
        " version in force for the range, for all machines and for good.",
    ),
    "preview_first": Param(
        True,
        type="boolean",
        title="Preview first",
        description="Show what would change before anything is written.",
    ),
    "after_preview": Param(
        "ask_if_much_flips",
        type="string",
        enum=["ask_if_much_flips", "always_ask", "stop"],
        values_display={
            "ask_if_much_flips": "go on; ask first if many verdicts would turn",
            "always_ask": "always ask first",
            "stop": "stop: I only want the preview",
        },
        title="After the preview",
        description="Many: more than the share ANOMALY_DAG_BACKFILL_APPROVAL_SHARE"
        f" ({settings.dags.dag_backfill_approval_share:g}) of those there are.",
    ),
    "chunk_days": Param(
        None,
        type=["null", "integer"],
        minimum=1,
        maximum=366,
        title="Days per chunk",
        description="Empty: automatic. A chunk is a task that can be cleared alone.",
    ),
}


@dag(
    dag_id=settings.dags.dag_prefix + "backfill_scores",
    description="Score a past range again: preview, run, compare. Give a start and an end, and trigger.",
    schedule=None,
    start_date=FIRST_DAY,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=settings.dags.longest_run + approval,
    default_args=default_args(settings, settings.dags.longest_run)
    | {"pool": settings.dags.dag_backfill_pool, "priority_weight": 1, "weight_rule": "absolute"},
    params=FORM,
    tags=["anomaly", "scoring"],
    doc_md=__doc__,
)
def backfill_scores() -> None:
    """Wire preview, question, chunks and report."""

    @task
    def check_request() -> list[dict[str, Any]]:
        """Refuse what cannot be done; return the chunks to preview."""
        context = get_current_context()
        refuse_fields(context)
        with deployment(settings) as database:
            keep_machine_names(database)
            backfiller, request = asked(context, database)
            chunks = [chunk.as_dict() for chunk in backfiller.chunks(request)]
        print(f"{request.window} in {len(chunks)} chunks")
        return chunks if context["params"]["preview_first"] else []

    @task(max_active_tis_per_dagrun=at_once, map_index_template=NAME)
    def preview_chunk(**values: Any) -> dict[str, Any]:
        """Count what a chunk would change; write nothing."""
        from anomaly.operations.backfilling import Chunk

        context = get_current_context()
        chunk = Chunk.from_dict(values)
        with deployment(settings) as database:
            backfiller, request = asked(context, database)
            return backfiller.preview(request, chunk).as_dict()

    @task.branch(trigger_rule="none_failed", outlets=[REPORTS])
    def report_preview(previews: Any) -> list[str]:
        """Show the preview, and decide whether to ask, to go on, or to stop."""
        context = get_current_context()
        params = context["params"]
        if not params["preview_first"]:
            return ["start_scoring"]
        with deployment(settings) as database:
            backfiller, request = asked(context, database)
            report = summed(backfiller, previews or [])
            words = backfiller.as_markdown(request, report)
        tell(context, words, report, "Preview", preview=True)
        if params["after_preview"] == "stop":
            return []
        much = report.flipped_share > settings.dags.dag_backfill_approval_share
        return ["ask" if much or params["after_preview"] == "always_ask" else "start_scoring"]

    ask = ApprovalOperator(
        task_id="ask",
        subject="Write these changes?",
        body="{{ ti.xcom_pull(task_ids='report_preview', key='words') }}",
        defaults=ApprovalOperator.REJECT,
        response_timeout=approval,
        execution_timeout=approval + settings.dags.longest_run / 2,  # it ends itself before
        retry_delay=timedelta(seconds=5),  # Airflow loses an answer that comes at once: ask again
    )

    @task(trigger_rule="none_failed_min_one_success")
    def start_scoring() -> list[dict[str, Any]]:
        """Record the backfill, put its version in force if it has one, and cut it into chunks."""
        context = get_current_context()
        run = context["dag_run"]
        by = f"{run.dag_id} {run.run_id}, {run.triggering_user_name or 'unknown'}"
        with deployment(settings) as database:
            backfiller, request = asked(context, database)
            number = backfiller.begin(request, requested_by(context), by)
            chunks = backfiller.chunks(request)
        print(f"backfill {number}: {request.window} in {len(chunks)} chunks")
        return [{**chunk.as_dict(), "backfill_id": number} for chunk in chunks]

    @task(outlets=[SCORES], max_active_tis_per_dagrun=at_once, map_index_template=NAME)
    def score_chunk(backfill_id: int, **values: Any) -> dict[str, int]:
        """Score one chunk; what of it is finished already is left out."""
        from anomaly.operations.backfilling import Backfiller, Chunk

        context = get_current_context()
        chunk = Chunk.from_dict(values)
        with deployment(settings) as database:
            tell_lineage(context, database, settings)
            backfiller = Backfiller(database, settings)
            report = backfiller.run(backfill_id, chunk, requested_by(context))
        return announce_scores(context, chunk.window, report)

    @task(trigger_rule="all_done", outlets=[REPORTS])
    def report(started: Any) -> None:
        """Show and keep what the backfill has changed; fail while chunks are not finished."""
        from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

        from anomaly.operations.backfilling import Backfiller

        context = get_current_context()
        states = states_of(context)
        if states.get("start_scoring") == "skipped":
            raise AirflowSkipException("nothing was to be written")
        if not started:
            raise AirflowFailException("nothing was scored: look at the task that failed")
        number, unfinished = started[0]["backfill_id"], states["score_chunk"]
        with deployment(settings) as database:
            backfiller = Backfiller(database, settings)
            found = backfiller.report(number, is_finished=not unfinished)
            previews = context["ti"].xcom_pull(task_ids="report_preview", key="seconds")
            words = backfiller.as_markdown(
                backfiller.request_of(number), found, backfill_id=number, estimated=previews
            )
        tell(context, words, found, f"Backfill {number}", preview=False)
        if unfinished:
            raise AirflowFailException(
                f"{unfinished} of {len(started)} chunks are not finished: look at the failed"
                " score_chunk, then clear it"
            )

    chunks = check_request()
    reported = report_preview(preview_chunk.expand_kwargs(chunks))
    started = start_scoring()
    reported >> [ask, started]
    ask >> started
    score_chunk.expand_kwargs(started) >> report(started)


# What the tasks share ---------------------------------------------------------------


def asked(context: Context, database: Any) -> tuple[Any, Any]:
    """The backfiller, and what the form asks of it, checked."""
    from anomaly.operations.backfilling import Backfiller
    from anomaly.windows import Window

    params = context["params"]
    backfiller = Backfiller(database, settings)
    return backfiller, backfiller.check(
        Window.parse(params["start"], params["end"]),
        params["machines"] or [],
        params["version"],
        params["mode"],
        params["chunk_days"],
        due=context["dag_run"].run_after,
    )


def refuse_fields(context: Context) -> None:
    """Refuse what no single field can: fields that the form does not have, and contradictions."""
    from airflow.sdk.exceptions import AirflowFailException

    params = context["params"]
    if not params["preview_first"] and params["after_preview"] in ("always_ask", "stop"):
        raise AirflowFailException(
            "there is nothing to ask about, or to stop after, without a preview: turn Preview first"
            " on"
        )
    if unknown := sorted({*(context["dag_run"].conf or {})} - FORM.keys()):
        raise AirflowFailException(
            f"there is no field {unknown[0]!r}: the form has {', '.join(FORM)}"
        )


def summed(backfiller: Any, previews: Any) -> Any:
    """The report of all previewed chunks."""
    from anomaly.operations.backfill_report import BackfillReport

    total = BackfillReport()
    for values in previews:
        total += BackfillReport.from_dict(values)
    return backfiller.joined(total)


def tell(context: Context, words: str, report: Any, title: str, *, preview: bool) -> None:
    """Put a report into the log, an event, and where the run's note is made of it."""
    from anomaly.operations.backfill_report import as_note

    print(words)
    instance = context["ti"]
    instance.xcom_push("words", words)
    instance.xcom_push("seconds", report.seconds)
    instance.xcom_push("anomaly_note", as_note(report, title))  # plugins/anomaly_plugin.py
    counts = report.as_dict()
    counts["incidents"] = {name: len(found) for name, found in counts["incidents"].items()}
    context["outlet_events"][REPORTS].add(BACKFILLS, extra={"preview": preview, **counts})


def states_of(context: Context) -> dict[str, Any]:
    """The state of `start_scoring`, and how many chunks are not finished."""
    run = context["dag_run"]
    found = context["ti"].get_task_states(
        dag_id=run.dag_id, task_ids=["start_scoring", "score_chunk"], run_ids=[run.run_id]
    )
    states = found.get(run.run_id, {})
    chunks = [state for name, state in states.items() if name.startswith("score_chunk")]
    return {
        "start_scoring": states.get("start_scoring"),
        "score_chunk": sum(state != "success" for state in chunks),
    }


backfill_scores()
