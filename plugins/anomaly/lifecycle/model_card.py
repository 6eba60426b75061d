"""Write the model card of a version: what it is, how it was judged, and pictures."""

from collections.abc import Mapping
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from anomaly.lifecycle.gate import CHALLENGER, CHAMPION, Compared, Judgement, Standing
from anomaly.wording import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCORES, ALERTS, DRIFT = "scores.png", "alerts.png", "drift.png"

_OF_ONE_DETECTOR = {
    "alert_budget": "signals",
    "forest_trees": "prototype",
    "forest_max_samples": "prototype",
    "forest_contamination": "prototype",
    "forest_one_hot_machines": "prototype",
}
"""Settings that only the named detector reads; the card of another leaves them out."""

_COLOURS = {CHALLENGER: "#1f5fa8", CHAMPION: "#c7842b"}
_MOST_MACHINES = 30  # more bars than these cannot be told apart in a picture


def model_card(version: int, details: Mapping[str, Any], judgement: Judgement) -> str:
    """The model card as Markdown.

    Parameters
    ----------
    details : mapping
        What the registry keeps about the version: ``detector``, ``trained_from``,
        ``trained_to``, ``readings``, ``machines``, ``parameters``, ``registered_by``.
    """
    parts = [
        f"# Model version {version}",
        _training_in_words(details),
        "## The judgement",
        verdict_in_words(judgement),
        comparison_table(judgement),
        "## Drift",
        _drift_in_words(judgement),
        "## Settings it was trained with",
        _settings_table(details["parameters"], details["detector"]),
        "The files of a version never change, so this card does not say what became of it later:"
        f" `anomaly models show {version}` says who put it in force, when and why.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def verdict_in_words(judgement: Judgement) -> str:
    """Whether the gate lets the version replace the champion, and if not, why."""
    if judgement.champion_version is None:
        return "No version was in force to compare it with: a first version is always put in force."
    if judgement.passed:
        return f"The gate lets it replace version {judgement.champion_version}."
    reasons = "\n".join(f"- {reason}" for reason in judgement.reasons)
    return f"**Refused**: version {judgement.champion_version} stays in force.\n\n{reasons}"


def comparison_table(judgement: Judgement) -> str:
    """Challenger beside champion, in Markdown; empty where nothing was judged."""
    challenger, champion = judgement.challenger, judgement.champion
    if challenger is None:
        return ""
    head = f"Judged on readings from {_day(judgement.judged_from)} to {_day(judgement.judged_to)}"
    rows = [
        ("alerts per machine-week", *_both(challenger, champion, lambda s: f"{s.alert_rate:.2f}")),
        ("alerts", *_both(challenger, champion, lambda s: str(s.alerts))),
        (
            "readings called abnormal",
            *_both(challenger, champion, lambda s: _per_cent(s.anomaly_share)),
        ),
        ("injected faults found", *_both(challenger, champion, _recall)),
    ]
    name = f"version {judgement.champion_version}" if champion else "no champion"
    table = [f"| | this version | {name} |", "|---|---|---|"]
    table += [f"| {what} | {mine} | {theirs} |" for what, mine, theirs in rows]
    trained_on = "no version was trained on any of them"
    lines = [f"{head}, of {judgement.machines} machines; {trained_on}.", "\n".join(table)]
    if judgement.agreement is not None and judgement.kappa is not None:
        lines.append(
            f"They agree on {judgement.agreement:.2%} of the readings (Cohen's kappa"
            f" {judgement.kappa:.2f})."
        )
    return "\n\n".join([*lines, _faults_in_words(judgement)])


def pictures(compared: Compared, detector: str) -> dict[str, bytes]:
    """PNG pictures by file name; empty where nothing was judged."""
    if not compared.verdicts:
        return {}
    found = {
        SCORES: _png(_scores(compared.verdicts, detector)),
        ALERTS: _png(_alerts(compared.judgement)),
    }
    if compared.judgement.drift:
        found[DRIFT] = _png(_drift(compared.judgement))
    return found


# Words -----------------------------------------------------------------------


def _training_in_words(details: Mapping[str, Any]) -> str:
    return (
        f"Detector `{details['detector']}`, trained on {details['readings']:,} readings of"
        f" {details['machines']} machines from {_day(details['trained_from'])} to"
        f" {_day(details['trained_to'])} (UTC), by {printable(details['registered_by'])}. Meter"
        " faults were left out."
    )


def _faults_in_words(judgement: Judgement) -> str:
    if not judgement.events:
        return "No faults could be injected: no machine moves, or the days are too short."
    found = ", ".join(f"{name} {_per_cent(recall)}" for name, recall in judgement.baselines.items())
    return (
        f"{judgement.events} faults of eight kinds were injected; brackets are 95 % intervals."
        f" Plain baselines, at this version's own alert rate, find: {found}.\n\n"
        f"![Scores]({SCORES})\n\n![Alerts per machine]({ALERTS})"
    )


def _drift_in_words(judgement: Judgement) -> str:
    if not judgement.drift:
        return "Nothing to compare the training readings with."
    worst = sorted(judgement.drift, key=lambda row: -row["psi"])[:5]
    rows = "\n".join(
        f"| {row['machine_id']} | {row['signal']} | {row['psi']:.3f} |" for row in worst
    )
    return (
        "Population stability index between the champion's training readings and these: below 0.1"
        " is no drift, above 0.25 is a shift. The largest:\n\n"
        f"| machine | signal | PSI |\n|---|---|---|\n{rows}\n\n![Drift]({DRIFT})"
    )


def _settings_table(parameters: Mapping[str, Any], detector: str) -> str:
    rows = "\n".join(
        f"| `{name}` | {value} |"
        for name, value in parameters.items()
        if _OF_ONE_DETECTOR.get(name, detector) == detector
    )
    return f"| setting | value |\n|---|---|\n{rows}"


def _both(challenger: Standing, champion: Standing | None, shown: Any) -> tuple[str, str]:
    return shown(challenger), shown(champion) if champion else "-"


def _recall(standing: Standing) -> str:
    if standing.recall is None or standing.recall_interval is None:
        return "-"
    low, high = standing.recall_interval
    return f"{standing.recall:.0%} [{low:.0%}, {high:.0%}]"


def _per_cent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _day(moment: object) -> str:
    return str(moment)[:16].replace("T", " ").removesuffix(" 00:00")


# Pictures --------------------------------------------------------------------


def _scores(verdicts: Mapping[str, pd.DataFrame], detector: str) -> "Figure":
    figure, axes = _figure()
    scores = {name: frame["anomaly_score"].dropna() for name, frame in verdicts.items()}
    bins = np.linspace(
        min(found.min() for found in scores.values()),
        max(found.max() for found in scores.values()) + 1e-9,
        60,
    )
    for name, found in scores.items():
        axes.hist(found, bins=bins, histtype="step", lw=1.6, color=_COLOURS[name], label=name)
        axes.axvline(verdicts[name]["threshold"].iloc[0], color=_COLOURS[name], ls="--", lw=1)
    axes.set(
        yscale="log", xlabel="anomaly score (dashed: threshold)", ylabel="readings",
        title=f"Scores on the judging days, detector {detector}",
    )  # fmt: skip
    axes.legend()
    return figure


def _alerts(judgement: Judgement) -> "Figure":
    figure, axes = _figure()
    counts = judgement.alerts_by_machine
    machines = sorted(counts[CHALLENGER], key=lambda m: -max(c.get(m, 0) for c in counts.values()))
    shown = sorted(machines[:_MOST_MACHINES], key=int)
    places, width = np.arange(len(shown)), 0.8 / len(counts)
    for number, (name, found) in enumerate(counts.items()):
        heights = [found.get(machine, 0) for machine in shown]
        offset = (number - (len(counts) - 1) / 2) * width
        axes.bar(places + offset, heights, width, color=_COLOURS[name], label=name)
    axes.set_xticks(places, labels=shown)
    of_all = f", the {len(shown)} noisiest of {len(machines)}" if len(machines) > len(shown) else ""
    axes.set(xlabel="machine", ylabel="alerts", title=f"Alerts on the judging days{of_all}")
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.legend()
    return figure


def _drift(judgement: Judgement) -> "Figure":
    figure, axes = _figure()
    table = pd.DataFrame(list(judgement.drift)).pivot_table(
        index="machine_id", columns="signal", values="psi", sort=False
    )
    worst = table.max(axis=1).sort_values(ascending=False).index[:_MOST_MACHINES]
    shown = table.loc[sorted(worst)]
    places, width = np.arange(len(shown)), 0.8 / len(shown.columns)
    for number, signal in enumerate(shown.columns):
        offset = (number - (len(shown.columns) - 1) / 2) * width
        axes.bar(places + offset, shown[signal], width, label=signal)
    axes.axhline(0.1, color="grey", lw=1, ls=":")
    axes.axhline(0.25, color="firebrick", lw=1, ls="--")
    axes.set_xticks(places, labels=[str(machine) for machine in shown.index])
    axes.set_ylim(0, max(0.3, float(np.nanmax(shown.to_numpy())) * 1.1))
    axes.set(
        xlabel="machine", ylabel="population stability index",
        title="Training readings against the champion's (dashed: a shift)",
    )  # fmt: skip
    axes.legend(loc="center right")
    return figure


def _figure() -> tuple["Figure", Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    return figure, axes


def _png(figure: "Figure") -> bytes:
    content = BytesIO()
    figure.savefig(content, format="png", dpi=110, metadata={"Software": None})
    return content.getvalue()
