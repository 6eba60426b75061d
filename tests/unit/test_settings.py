"""Settings: read once, and a wrong one is refused with its name and what is allowed."""

import re

import pytest

from anomaly.errors import SettingsError
from anomaly.settings import ReadingKind, load_settings


def test_the_defaults_are_the_contracts():
    settings = load_settings({})

    assert settings.meter_table.source_name == "anomaly.meter_readings"
    assert settings.meter.reading_kind is ReadingKind.ENERGY_KWH
    assert (
        settings.meter.interval_minutes,
        settings.scoring.lateness_hours,
        settings.meter.max_gap_days,
    ) == (15, 2, 7)
    assert (settings.training.forest_trees, settings.training.forest_max_samples) == (350, 256)
    assert (settings.training.forest_contamination, settings.scoring.retract_limit) == (0.05, 0.01)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("ANOMALY_READING_KIND", "joule", "'energy_kwh', 'power_w', 'energy"),
        ("ANOMALY_INTERVAL_MINUTES", "0", "greater than or equal to 1"),
        ("ANOMALY_SOURCE_TIMEZONE", "Berlin", "not a time zone name"),
        ("ANOMALY_SOURCE_MACHINES", '{"a": 1, "b": 1}', "two columns map to the same machine id"),
        ("ANOMALY_RETRACT_LIMIT", "5", "less than or equal to 1"),
    ],
)
def test_a_wrong_value_is_refused_with_its_name_and_what_is_allowed(
    monkeypatch, name, value, message
):
    monkeypatch.setenv(name, value)

    with pytest.raises(SettingsError, match=re.escape(message)) as refused:
        load_settings()
    assert str(refused.value).startswith(f"{name} is ")


def test_an_unknown_name_is_refused_with_the_nearest_one():
    with pytest.raises(SettingsError, match="did you mean ANOMALY_LATENESS_HOURS"):
        load_settings({"ANOMALY_LATENES_HOURS": "3"})


def test_a_mapping_that_is_not_json_is_refused(monkeypatch):
    monkeypatch.setenv("ANOMALY_SOURCE_MACHINES", "Pump=1")

    with pytest.raises(SettingsError, match="ANOMALY_SOURCE_MACHINES is 'Pump=1': write JSON"):
        load_settings()


def test_an_empty_value_is_the_default_and_infinity_is_none():
    empty = {"ANOMALY_SOURCE_MACHINES": "", "ANOMALY_LATENESS_HOURS": ""}

    assert load_settings(empty) == load_settings({})
    with pytest.raises(SettingsError, match="ANOMALY_STALE_AFTER_HOURS is 'inf'"):
        load_settings({"ANOMALY_STALE_AFTER_HOURS": "inf"})


def test_variables_of_other_programs_are_left_alone():
    assert load_settings({"ANOMALY_DB_PASSWORD": "x", "ANOMALY_SERVICE_HOST": "y"})


def test_a_given_environment_is_the_only_one_that_is_read(monkeypatch):
    monkeypatch.setenv("ANOMALY_SOURCE_TABLE", "foreign")

    assert load_settings({}).meter_table.source_table == "meter_readings"
