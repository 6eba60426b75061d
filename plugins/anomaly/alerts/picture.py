"""Draw a machine's last day beside what is usual of it, as a PNG."""

from datetime import datetime, timedelta
from io import BytesIO
from zoneinfo import ZoneInfo

from anomaly.incidents.usual_band import UsualBands, Verdicts
from anomaly.windows import Window

DAY = timedelta(hours=24)
_POWER, _USUAL, _ALARM = "#1f5fa8", "#7a8793", "#c0392b"


def day_picture(
    title: str, verdicts: Verdicts, inside: Window, end: datetime, clock: ZoneInfo
) -> bytes:
    """The 24 hours up to `end` as a PNG: power, what is usual, its band, and the incident.

    Parameters
    ----------
    verdicts : sequence of mapping
        The machine's verdicts, also those of the weeks before, from which the band is computed.
    inside : Window
        The incident.
    """
    from matplotlib.dates import DateFormatter
    from matplotlib.figure import Figure

    bands = UsualBands(verdicts, inside.start, clock)
    shown = [row for row in verdicts if end - DAY <= row["utc_timestamp"] < end]
    times = [row["utc_timestamp"] for row in shown]
    known = [bands.at(moment) for moment in times]
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, loc="left", parse_math=False)
    axes.set_ylabel("kW")
    axes.grid(alpha=0.25)
    begins, ends, first, last = map(_number, (inside.start, min(inside.end, end), end - DAY, end))
    axes.axvspan(begins, ends, color=_ALARM, alpha=0.12, label="incident")
    axes.fill_between(
        times,
        [float("nan") if band is None else band.low for band in known],
        [float("nan") if band is None else band.high for band in known],
        color=_USUAL,
        alpha=0.25,
        step="post",
        label="usual band of four weeks",
    )
    axes.plot(times, _powers(shown, "expected_kw"), color=_USUAL, linestyle="--", label="usual")
    axes.plot(times, _powers(shown, "power_kw"), color=_POWER, label="power")
    alarms = [row for row in shown if row["anomaly"] and row["power_kw"] is not None]
    axes.plot(
        [row["utc_timestamp"] for row in alarms],
        _powers(alarms, "power_kw"),
        color=_ALARM,
        linestyle="",
        marker="o",
        markersize=4,
        label="judged not as usual",
    )
    axes.set_xlim(first, last)
    axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
    axes.xaxis.set_major_formatter(DateFormatter("%a %H:%M", tz=clock))  # type: ignore[no-untyped-call]
    axes.set_xlabel(f"{end.astimezone(clock):%Y-%m-%d, %Z}", loc="right")
    figure.legend(loc="outside lower left", ncols=5, fontsize="small", frameon=False)
    content = BytesIO()
    figure.savefig(content, format="png", dpi=110, metadata={"Software": None})
    return content.getvalue()


def _powers(rows: Verdicts, name: str) -> list[float]:
    return [float("nan") if row[name] is None else float(row[name]) for row in rows]


def _number(moment: datetime) -> float:
    """A moment as matplotlib counts it."""
    from matplotlib.dates import date2num

    return float(date2num(moment))  # type: ignore[no-untyped-call]
