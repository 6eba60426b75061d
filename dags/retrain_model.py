"""
### Train a new model version, judge it, and put it in force, weekly

`train` trains on the last weeks before the newest days (`ANOMALY_TRAINING_WEEKS`,
`ANOMALY_JUDGING_DAYS`), judges the version against the one in force on those newest days,
which neither was trained on, and registers it whatever the verdict, with a model card
(its place is in the log, and in the XCom `card`). Then, by `ANOMALY_PROMOTION`:

| the gate | `auto` | `approve` | `manual` |
|---|---|---|---|
| lets it through | `promote` | `ask`, then `promote` | `keep_champion` |
| refuses it | `keep_champion`, with the reasons | the same | the same |
| refuses a second one in a row, or the champion is old | `ask`, and `check_gate` fails | the same | `keep_champion`, and `check_gate` fails |

A first version is always put in force. `ask` waits in the UI under *Required Actions*; rejected,
or not answered in `ANOMALY_APPROVAL_TIMEOUT_HOURS`, the champion stays. A promotion takes effect
with the next interval that is not yet scored: verdicts that are out stay as they are.

**When it fails**

| message | what to do |
|---|---|
| n days of readings to train on, at least m are needed | wait, or load older readings with `anomaly ingest` |
| the meter table is empty | load readings |
| cannot write below / cannot reach the models' place | give the workers `ANOMALY_MODELS_URL`; nothing was registered |
| `check_gate`: n versions in a row were refused / learnt from readings that are n weeks old | decide: answer under *Required Actions*, or `anomaly models promote N`; the numbers are `ANOMALY_GATE_REFUSALS` and `ANOMALY_GATE_CHAMPION_WEEKS` |
| was judged against version n, and version m is in force by now | somebody promoted meanwhile: run it again |

A failed or killed run registers nothing or a whole version; run it again. `keep_champion` says
why in its log; `anomaly models show N` tells more, `promote_model` overrules.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import CronDataIntervalTimetable, dag, get_current_context, task

from anomaly.settings import load_settings
from anomaly_wiring import (
    FIRST_DAY,
    MODELS,
    ToldAnywayError,
    announce_promotion,
    default_args,
    deployment,
    due_at,
    tell_lineage,
)

settings = load_settings()
approval = timedelta(hours=settings.gate.approval_timeout_hours)


@dag(
    dag_id=settings.dags.dag_prefix + "retrain_model",
    schedule=CronDataIntervalTimetable("30 2 * * 1", timezone="UTC"),
    start_date=FIRST_DAY,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=settings.dags.longest_run + approval,
    default_args=default_args(settings, settings.dags.longest_run, tells=True),
    tags=["anomaly", "training"],
    doc_md=__doc__,
)
def retrain_model() -> None:
    """Wire training to what becomes of it."""

    @task.branch
    def train() -> list[str]:
        """Train, judge, register; name the tasks that come next."""
        from anomaly.lifecycle.model_card import comparison_table, verdict_in_words
        from anomaly.lifecycle.promotion import needs_a_person, next_step
        from anomaly.lifecycle.training import Trainer
        from anomaly.operations.alert_checks import tell_question

        context = get_current_context()
        run, instance = context["dag_run"], context["ti"]
        with deployment(settings) as database:
            trainer = Trainer(database, settings)
            due = due_at(context, settings.meter.interval)
            by = f"{run.dag_id} {run.run_id}"
            report = trainer.challenge(trainer.default_window(due), by=by, due=due)
            tell_lineage(context, database, settings, folder=report.card.rpartition("/")[0])
            judgement, refused = report.judgement, report.refused_in_a_row
            step = next_step(judgement, settings.gate, refused)
            if judgement.passed and step != "promote":
                tell_question(database, settings, report.version, datetime.now(UTC))
        decide = needs_a_person(judgement, settings.gate, refused)
        words = f"{verdict_in_words(judgement)}\n\n{comparison_table(judgement)}"
        print(f"version {report.version}, model card {report.card}\n{words}")
        instance.xcom_push("version", report.version)
        instance.xcom_push("champion", judgement.champion_version)
        instance.xcom_push("card", report.card)
        instance.xcom_push("words", f"{words}\n\nModel card: {report.card}")
        instance.xcom_push("decide", decide)
        return [str(step), "check_gate"] if decide else [str(step)]

    ask = ApprovalOperator(
        task_id="ask",
        subject="Put model version {{ ti.xcom_pull(task_ids='train', key='version') }} in force?",
        body="{{ ti.xcom_pull(task_ids='train', key='words') }}",
        defaults=ApprovalOperator.REJECT,
        response_timeout=approval,
        execution_timeout=approval + settings.dags.longest_run / 2,  # it ends itself before
    )

    @task(outlets=[MODELS], trigger_rule="none_failed_min_one_success")
    def promote() -> dict[str, Any]:
        """Put the version in force that was judged."""
        from anomaly.lifecycle.promotion import Promoter

        context = get_current_context()
        run, instance = context["dag_run"], context["ti"]
        trained = {
            key: instance.xcom_pull(task_ids="train", key=key)
            for key in ("version", "champion", "card")
        }
        with deployment(settings) as database:
            promoted = Promoter(database, settings).promote(
                trained["version"],
                by=f"{run.dag_id} {run.run_id}",
                reason=reason_of(instance.xcom_pull(task_ids="ask")),
                judged_against=trained["champion"],
            )
        return announce_promotion(context, promoted, model_card=trained["card"])

    @task
    def keep_champion() -> None:
        """Say why the version in force stays."""
        context = get_current_context()
        print(context["ti"].xcom_pull(task_ids="train", key="words"))
        print("put it in force all the same: DAG promote_model, or `anomaly models promote`")

    @task
    def check_gate() -> None:
        """Fail, so that somebody is told: a person must decide which version judges."""
        instance = get_current_context()["ti"]
        version, decide = (
            instance.xcom_pull(task_ids="train", key=key) for key in ("version", "decide")
        )
        raise ToldAnywayError(
            f"a person must decide on version {version}: {decide}. Answer the task `ask` under"
            f" Required Actions, or run `anomaly models promote {version}`"
        )

    trained, promotion = train(), promote()
    trained >> [ask, promotion, keep_champion(), check_gate()]
    ask >> promotion


def reason_of(approval: dict[str, Any] | None) -> str:
    """Why a version is put in force: the gate let it through, and who said yes."""
    if not approval:
        return "weekly training"
    user = approval.get("responded_by_user") or {}
    name = user.get("name") if isinstance(user, dict) else getattr(user, "name", None)
    return f"weekly training, approved by {name or 'somebody'}"


retrain_model()
