#!/usr/bin/env python3
"""Whether a component of Airflow is healthy: `healthy scheduler`, for the checks of a container.

It asks the running component, or the API server about its heartbeats, and imports no Airflow:
`airflow jobs check` takes seconds of processor time only to start.
"""

import json
import os
import socket
import sys
import urllib.request
from urllib.parse import urlsplit

SECONDS = 8  # how long an answer may take; less than the time limit of the check


def main(component: str) -> None:
    """End with 0 when the component is healthy, else with 1 and what was found."""
    try:
        CHECKS[component]()
    except Exception as error:
        sys.exit(f"{component} is not healthy: {error}")


def check_api_server() -> None:
    """The API server answers, and reaches Airflow's database."""
    require_healthy("metadatabase", "http://localhost:8080")


def check_scheduler() -> None:
    """The scheduler of this container has had a heartbeat within the last half minute."""
    port = os.environ.get("AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_PORT", "8974")
    fetch(f"http://localhost:{port}/health")


def check_dag_processor() -> None:
    """A DAG processor has had a heartbeat within the last half minute."""
    require_healthy("dag_processor", api_server())


def check_triggerer() -> None:
    """A triggerer has had a heartbeat within the last half minute."""
    require_healthy("triggerer", api_server())


def check_worker() -> None:
    """The Celery worker of this container answers through the broker."""
    from celery import Celery

    name = f"celery@{socket.gethostname()}"
    app = Celery(broker=os.environ["AIRFLOW__CELERY__BROKER_URL"])
    if not app.control.ping(destination=[name], timeout=SECONDS, limit=1):
        raise RuntimeError(f"{name} does not answer within {SECONDS} s")


def check_flower() -> None:
    """Flower answers."""
    fetch("http://localhost:5555/healthcheck")


CHECKS = {
    "api-server": check_api_server,
    "scheduler": check_scheduler,
    "dag-processor": check_dag_processor,
    "triggerer": check_triggerer,
    "worker": check_worker,
    "flower": check_flower,
}


def api_server() -> str:
    """Address of the API server: the one that tasks use."""
    url = urlsplit(os.environ["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"])
    return f"{url.scheme}://{url.netloc}"


def require_healthy(part: str, address: str) -> None:
    """Ask the API server whether a part is healthy."""
    status = (json.loads(fetch(f"{address}/api/v2/monitor/health")).get(part) or {}).get("status")
    if status != "healthy":
        raise RuntimeError(f"{part} is {status}")


def fetch(url: str) -> bytes:
    """Body of a page; anything but success is an error."""
    with urllib.request.urlopen(url, timeout=SECONDS) as answer:  # noqa: S310
        return bytes(answer.read())


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in CHECKS:
        sys.exit(f"usage: healthy {'|'.join(CHECKS)}")
    main(sys.argv[1])
