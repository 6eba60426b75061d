"""The API under what it was not made for: requests of every form, and many callers at once."""

import random
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest
from api_server import LEARNT, environment, plant, serving

from deployment import at
from integration_settings import SMALL

pytestmark = [pytest.mark.slow, pytest.mark.timeout(580)]

CALLERS, SECONDS = 50, 60


@pytest.fixture
def variables(database, settings):
    plant(database, settings)
    return environment(database, settings, **SMALL)


def test_requests_of_every_form_get_an_answer_that_is_no_fault(
    variables, tmp_path, record_property
):
    with serving(variables, folder=tmp_path) as api:
        tool = Path(sys.executable).with_name("schemathesis")
        run = subprocess.run(
            [
                tool, "run", f"{api.address}/openapi.json", "--checks", "not_a_server_error",
                "--max-examples", "40", "--seed", "7", "--generation-database", "none",
                "--request-timeout", "40", "--no-color",
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip
        assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-1000:]
        assert api.client.get("/health").status_code == 200
        measured = api.client.get("/metrics").text
        asked = Counter()
        for line in measured.splitlines():
            if line.startswith("anomaly_api_requests_total"):
                asked[line.split('status="')[1][:1]] += int(float(line.rsplit(" ", 1)[1]))
    record_property("requests by the first digit of their status", dict(asked))
    assert asked["5"] == 0
    assert asked["2"] > 100
    assert asked["4"] > 100


def test_fifty_callers_at_once_are_all_answered_for_a_minute(variables, tmp_path, record_property):
    """Each asks again as soon as it is answered, as the gateways of fifty lines would."""
    took: list[float] = []
    trouble: list[str] = []
    record = {"utc_timestamp": f"{at(LEARNT):%Y-%m-%d %H:%M:%S}", "machine_1": 970.5}
    with serving(variables, folder=tmp_path) as api:
        end = time.monotonic() + SECONDS

        def ask(number: int) -> None:
            chance = random.Random(number)
            with httpx.Client(base_url=api.address, timeout=60) as client:
                while time.monotonic() < end:
                    mine = record | {"machine_1": 970 + chance.random()}
                    begun = time.monotonic()
                    answer = client.post("/predict_real_time", json=mine)
                    took.append(time.monotonic() - begun)
                    if answer.status_code != 200 or len(answer.json()["prediction_result"]) != 1:
                        trouble.append(f"{answer.status_code} {answer.text}")

        callers = [threading.Thread(target=ask, args=(number,)) for number in range(CALLERS)]
        for caller in callers:
            caller.start()
        while time.monotonic() < end:
            assert api.client.get("/health/live").status_code == 200
            time.sleep(1)
        for caller in callers:
            caller.join(90)
        assert not any(caller.is_alive() for caller in callers)

    assert trouble == []
    middle = sorted(took)[len(took) // 2]
    record_property("50 callers for a minute", f"{len(took)} answers, the middle in {middle:.2f} s")
    assert len(took) > 10 * CALLERS
