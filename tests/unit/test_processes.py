"""What background processes get from the shell that starts them."""

import json
import time

import psutil
import pytest

from anomaly.demo.processes import BackgroundProcess, inherited_environment


def test_neither_another_deployment_nor_a_ban_on_compiled_modules_is_handed_on(monkeypatch):
    monkeypatch.setenv("AIRFLOW_HOME", "/elsewhere")
    monkeypatch.setenv("ANOMALY_DATABASE_URL", "postgresql://elsewhere")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("LANG", "C.UTF-8")

    handed_on = inherited_environment()

    assert handed_on["LANG"] == "C.UTF-8"
    assert not {"AIRFLOW_HOME", "ANOMALY_DATABASE_URL", "PYTHONDONTWRITEBYTECODE"} & set(handed_on)


@pytest.fixture
def background(tmp_path):
    """A process that has a child, and a grandchild whose parent has ended."""
    background = BackgroundProcess(tmp_path / "record.json", tmp_path / "log")
    shell = '(sleep 600 & true); sleep 600 & trap "kill $!" TERM; wait'
    background.start(["sh", "-c", shell], inherited_environment())
    until(lambda: len(background.family) == 3 and background.children == ["sleep 600"])
    yield background
    background.stop()


def until(holds):
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ended(process):
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_stopping_ends_what_has_lost_its_parent_too(background):
    family = background.family

    background.stop()

    assert all(map(ended, family))
    assert not background.running


def test_a_new_start_ends_what_a_killed_process_has_left_behind(background):
    family = background.family
    background.process.kill()
    until(lambda: not background.running)
    assert len(background.family) == 2

    background.start(["sleep", "600"], inherited_environment())

    assert all(map(ended, family))
    assert background.running


def test_a_session_of_the_same_number_elsewhere_is_not_touched(background, tmp_path):
    (tmp_path / "other").mkdir()
    other = BackgroundProcess(tmp_path / "other" / "record.json", tmp_path / "other.log")
    known = json.loads(background.record.read_text())
    other.record.write_text(json.dumps(known | {"born": known["born"] - 60}))

    other.stop()

    assert len(background.family) == 3
    assert background.running


def test_a_child_that_has_ended_is_told_from_one_that_lives(background):
    (child,) = background.process.children()
    background.process.suspend()  # it asks for no child's end
    child.kill()

    until(lambda: background.children == [""])
    background.process.resume()
