"""Settings from anomaly.toml: where it is looked for, and whose it must be."""

import os

import pytest

from anomaly.config_file import find_config_file
from anomaly.errors import SettingsError
from anomaly.settings import load_settings, settings_in_force


def config(tmp_path, text):
    file = tmp_path / "anomaly.toml"
    file.write_text(text)
    return {"ANOMALY_CONFIG_FILE": str(file)}


def test_settings_stand_at_the_top_or_in_the_table_of_their_group(tmp_path):
    environment = config(
        tmp_path,
        'retract_limit = 0.5\n[meter]\nreading_kind = "power_w"\n'
        '[meter_table.source_machines]\n"Pump A" = 7\n',
    )

    settings = load_settings(environment)

    assert settings.scoring.retract_limit == 0.5
    assert settings.meter.reading_kind == "power_w"
    assert settings.meter_table.source_machines == {"Pump A": 7}


def test_variables_win_and_each_setting_says_where_it_comes_from(tmp_path, monkeypatch):
    (tmp_path / "anomaly.toml").write_text("retract_limit = 0.5\nlateness_hours = 3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ANOMALY_RETRACT_LIMIT", "0.25")

    settings, sources = settings_in_force()

    assert (settings.scoring.retract_limit, settings.scoring.lateness_hours) == (0.25, 3)
    assert sources == {
        "retract_limit": "ANOMALY_RETRACT_LIMIT",
        "lateness_hours": str(tmp_path / "anomaly.toml"),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("retract_limit = 5", "retract_limit in .*anomaly.toml is 5: Input should be less"),
        (
            "retract_limt = 0.5",
            "has retract_limt, which is not a setting: did you mean retract_limit",
        ),
        (
            "[meter]\nretract_limit = 0.5",
            r"has retract_limit in \[meter\]: it belongs to \[scoring\]",
        ),
        ("retract_limit = 0.5\n[scoring]\nretract_limit = 0.1", "has retract_limit twice"),
        ("retract_limit", "cannot be read: .*; correct it, it is TOML"),
    ],
)
def test_what_is_wrong_in_the_file_is_named_with_the_file(tmp_path, text, message):
    with pytest.raises(SettingsError, match=message):
        load_settings(config(tmp_path, text))


def test_a_file_that_is_named_and_not_there_is_an_error(tmp_path):
    with pytest.raises(SettingsError, match="there is no such file"):
        load_settings({"ANOMALY_CONFIG_FILE": str(tmp_path / "none.toml")})


def test_the_file_of_airflows_home_is_the_last_that_is_looked_for(tmp_path):
    for folder in ("here", "home"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "anomaly.toml").touch()
    airflow = {"AIRFLOW_HOME": str(tmp_path / "home")}

    assert find_config_file(airflow, tmp_path / "here") == tmp_path / "here" / "anomaly.toml"
    assert find_config_file(airflow, tmp_path) == tmp_path / "home" / "anomaly.toml"
    assert find_config_file({}, tmp_path) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another account")
def test_a_file_of_another_account_in_the_working_directory_is_left_alone(tmp_path):
    (tmp_path / "anomaly.toml").touch()
    os.chown(tmp_path / "anomaly.toml", 65534, 65534)

    assert find_config_file({}, tmp_path) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another account")
def test_a_working_directory_that_is_closed_is_no_error(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.chdir(closed)
            os.setuid(65534)
            load_settings()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
