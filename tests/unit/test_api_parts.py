"""Parts of the API that need no database: the queue, and who is on this machine."""

import asyncio
import threading

import pytest
from fastapi import HTTPException

from anomaly.api import workers as workers_module
from anomaly.api.keys import is_this_machine
from anomaly.api.workers import Workers


def test_no_more_than_so_many_work_at_once_and_the_queue_has_an_end(monkeypatch):
    monkeypatch.setattr(workers_module, "MOST_WAITING", 3)
    workers, gate, running = Workers(2), threading.Event(), []

    def work():
        running.append(threading.get_ident())
        assert gate.wait(30)
        return len(running)

    async def ask():
        waiting = [asyncio.create_task(workers.do(work)) for _ in range(5)]
        while len(running) < 2:
            await asyncio.sleep(0.01)
        with pytest.raises(HTTPException) as refusal:
            await workers.do(work)
        assert (refusal.value.status_code, refusal.value.headers) == (503, {"Retry-After": "1"})
        assert len(running) == 2
        gate.set()
        assert len(await asyncio.gather(*waiting)) == 5
        assert await workers.do(lambda: "again") == "again"

    asyncio.run(ask())


def test_who_gives_up_waiting_leaves_the_queue_and_what_has_begun_holds_its_thread():
    workers, gate, done = Workers(1), threading.Event(), []

    async def ask():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await workers.do(lambda: gate.wait(30) and done.append("begun"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await workers.do(lambda: done.append("never"))
        gate.set()
        await workers.do(lambda: done.append("last"))

    asyncio.run(ask())

    assert done == ["begun", "last"]


@pytest.mark.parametrize(
    ("host", "is_here"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("LocalHost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.example", False),
        ("", False),
    ],
)
def test_this_machine_is_its_loopback_addresses_and_no_others(host, is_here):
    assert is_this_machine(host) is is_here


def test_what_looks_after_the_api_goes_on_whatever_goes_wrong(monkeypatch):
    from anomaly.api import refresher as module
    from anomaly.errors import NoModelError

    monkeypatch.setattr(module, "REFRESH_SECONDS", 0.01)
    called, troubles = threading.Event(), iter([ValueError("x"), NoModelError("no model")])

    def look():
        for trouble in troubles:
            raise trouble
        called.set()

    watch = module.Refresher(look)
    assert watch.trouble() == "it is still starting"
    watch.start()

    assert called.wait(20)
    assert watch.trouble(5) == ""
