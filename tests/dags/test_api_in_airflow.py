"""The API that the plugin mounts: cheap to load, and nothing is made for whom Airflow refuses."""

import asyncio
import subprocess
import sys

import pytest

PROBE = """
import sys
import airflow.plugins_manager
before = set(sys.modules)
sys.path.insert(0, "plugins")
import anomaly_plugin
(mounted,) = anomaly_plugin.AnomalyPlugin.fastapi_apps
assert mounted["url_prefix"] == "/anomaly"
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before} - {"anomaly_plugin"}))
"""
HEAVY = {"pandas", "numpy", "sklearn", "fastapi", "starlette", "sqlalchemy", "psycopg2", "anomaly"}


@pytest.fixture
def plugin():
    """Load the plugin's file as Airflow does."""
    import anomaly_plugin

    return anomaly_plugin


def ask(api, path="/anomaly/machines"):
    """Ask as Airflow's server would; the status of the answer, and its body."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "method": "GET", "path": path, "root_path": "/anomaly", "headers": [],
        "query_string": b"", "client": ("127.0.0.1", 1),
    }  # fmt: skip
    asyncio.run(api(scope, receive, send))
    return sent[0]["status"], sent[1]["body"]


def test_loading_the_plugin_imports_nothing_heavy(project):
    found = subprocess.run(
        [sys.executable, "-c", PROBE], cwd=project, capture_output=True, text=True, check=True
    )

    assert not HEAVY & set(found.stdout.split())


def test_nothing_is_made_for_whom_airflow_refuses_nor_for_liveness(plugin, monkeypatch):
    from fastapi import HTTPException

    made = []

    async def refused(request):
        raise HTTPException(401, "Not authenticated")

    monkeypatch.setattr(plugin, "caller_of", refused)
    monkeypatch.setattr(plugin, "make_api", lambda: made.append(1))

    assert ask(plugin.Api()) == (401, b'{"detail":"Not authenticated"}')
    assert ask(plugin.Api(), "/anomaly/health/live") == (200, b'{"status":"ok"}')
    assert made == []


def test_a_wrong_setting_is_said_without_a_traceback_of_airflow(plugin, monkeypatch, caplog):
    from anomaly.errors import SettingsError

    async def wrong(request):
        raise SettingsError("postgresql://somebody:secret@host/database is no setting")

    monkeypatch.setattr(plugin, "caller_of", wrong)

    status, body = ask(plugin.Api())

    assert (status, body) == (503, b'{"detail":"the API cannot say who asks, the log says why"}')
    assert "secret" not in caplog.text


def test_an_api_that_cannot_start_says_so_and_is_not_tried_for_each_request(plugin, monkeypatch):
    tried = []

    async def known(request):
        return {"name": "a", "identity": "user a", "can_label": False}

    def fail():
        tried.append(1)
        raise RuntimeError("postgresql://somebody:secret@host/database does not answer")

    monkeypatch.setattr(plugin, "caller_of", known)
    monkeypatch.setattr(plugin, "make_api", fail)
    api = plugin.Api()

    answers = [ask(api) for _ in range(3)]

    assert {status for status, _ in answers} == {503}
    assert b"the API cannot start (RuntimeError), the log says why" in answers[0][1]
    assert b"secret" not in answers[0][1]
    assert tried == [1]
