"""The demo keeps what the environment says of a file of one's own."""

import socket
from contextlib import closing
from dataclasses import replace

import pytest

from anomaly.demo.__main__ import OF_READINGS, Choices, Demo, superset
from anomaly.demo.superset_server import SupersetServer
from anomaly.errors import AnomalyError

SAID = dict(zip(OF_READINGS, ("Asia/Seoul", "power_w", "5", "end", "kW"), strict=True))


@pytest.fixture
def data(tmp_path):
    """A file of readings."""
    file = tmp_path / "readings.csv"
    file.write_text("utc_timestamp,machine_1\n2024-01-01 00:00,1\n")
    return file


def loaded(demo):
    """Say that the readings have come in."""
    demo._write(replace(demo.choices, loaded=True))
    return demo


def test_settings_of_the_readings_are_taken_from_the_environment_and_kept(
    tmp_path, data, monkeypatch
):
    for name, value in SAID.items():
        monkeypatch.setenv(name, value)
    made = loaded(Demo(tmp_path / "demo", data))
    for name in SAID:
        monkeypatch.delenv(name)

    kept = Demo(tmp_path / "demo", None)

    for demo in (made, kept):
        assert demo.settings.meter.source_timezone == "Asia/Seoul"
        assert demo.settings.meter.interval_minutes == 5
        assert demo.settings.meter.unit == "kW"
        assert demo._variables.items() >= SAID.items()  # what Airflow and .demo/env get


def test_generated_readings_are_as_they_are_whatever_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("ANOMALY_READING_KIND", "power_w")

    assert Demo(tmp_path / "demo", None).settings.meter.reading_kind == "energy_kwh"


def test_another_setting_than_the_demo_was_made_with_is_refused(tmp_path, data, monkeypatch):
    loaded(Demo(tmp_path / "demo", data))
    monkeypatch.setenv("ANOMALY_INTERVAL_MINUTES", "5")

    with pytest.raises(AnomalyError, match=r"ANOMALY_INTERVAL_MINUTES is '5', .*`make demo-reset`"):
        Demo(tmp_path / "demo", data)


def test_options_of_ingest_become_settings_where_all_commands_need_them(tmp_path, data):
    options = ["--kind=energy_kwh_per_interval", "--timezone", "Europe/Berlin", "--columns", "a=b"]

    demo = loaded(Demo(tmp_path / "demo", data, options))

    assert demo.settings.meter.reading_kind == "energy_kwh_per_interval"
    assert demo.settings.meter.source_timezone == "Europe/Berlin"
    assert demo.choices.options == ["--columns", "a=b"]
    assert Demo(tmp_path / "demo", None).choices == demo.choices
    with pytest.raises(
        AnomalyError, match=r"made with DEMO_ARGS '--columns a=b', not '--columns c"
    ):
        Demo(tmp_path / "demo", data, ["--columns", "c=d"])


def test_options_without_a_file_are_refused(tmp_path):
    with pytest.raises(AnomalyError, match="DEMO_ARGS says something of a file"):
        Demo(tmp_path / "demo", None, ["--ignore-unknown"])


def test_superset_needs_a_demo_that_runs(tmp_path):
    with pytest.raises(AnomalyError, match="there is no demo: run `make demo`"):
        superset(None, tmp_path / "none")

    Demo(tmp_path, None)._write(Choices("", "2026-01-01", {"bi_reader": "secret"}, scored=True))

    with pytest.raises(AnomalyError, match="the demo is not running: run `make demo`"):
        superset(None, tmp_path)


def test_superset_refuses_a_port_that_another_program_has(tmp_path):
    programs = tmp_path / ".venv-superset" / "bin"
    programs.mkdir(parents=True)
    (programs / "superset").touch()
    server = SupersetServer(tmp_path / "superset", project=tmp_path, bi_url="")
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]

        with pytest.raises(AnomalyError, match=f"another program listens on port {port}"):
            server.start(port)
