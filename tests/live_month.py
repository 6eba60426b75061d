"""Live ticks of a month, every eight hours, each followed by the sender.

It goes on where it was killed.

Run as a process: ``python live_month.py '{"database": ..., "models": ..., "route": ...}'``.
"""

import json
import sys
from datetime import datetime, timedelta

from anomaly.alerts.sending import send_alerts
from anomaly.database.connection import SCORER, Database
from anomaly.database.scoring_runs import RequestedBy, live_coverage
from anomaly.scoring.scorer import Scorer
from anomaly.scoring.ticks import score_tick
from anomaly.settings import Settings, load_settings
from anomaly.windows import Window

STEP, QUARTER = timedelta(hours=8), timedelta(minutes=15)
SENDS_AFTERWARDS = 12


def month_settings(models: str, route: str) -> Settings:
    """Every event is told by itself, however long ago the month was."""
    return load_settings(
        {},
        models_url=models,
        alert_routes=route,
        alert_age_hours=24 * 31,
        alert_group_from=1000,
        detector="signals",
    )


def main() -> None:
    """Tick from the watermark on to the end of the month."""
    told = json.loads(sys.argv[1])
    settings = month_settings(told["models"], told["route"])
    database = Database(told["database"], settings.database)
    first, end = (datetime.fromisoformat(told[name]) for name in ("first", "end"))
    now = datetime.fromisoformat(told["now"])
    with database.transaction(SCORER, read_only=True) as transaction:
        watermark = live_coverage(transaction).watermark
    tick = max(first, watermark + STEP) if watermark else first
    scorer = Scorer(database, settings)
    while tick <= end:
        score_tick(scorer, Window(tick - QUARTER, tick), RequestedBy("month"))
        send_alerts(database, settings, now + (tick - first))
        tick += STEP
    for number in range(SENDS_AFTERWARDS):
        send_alerts(database, settings, now + (end - first) + number * STEP)


if __name__ == "__main__":
    main()
