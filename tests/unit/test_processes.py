"""What background processes get from the shell that starts them."""

from anomaly.demo.processes import inherited_environment


def test_neither_another_deployment_nor_a_ban_on_compiled_modules_is_handed_on(monkeypatch):
    monkeypatch.setenv("AIRFLOW_HOME", "/elsewhere")
    monkeypatch.setenv("ANOMALY_DATABASE_URL", "postgresql://elsewhere")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("LANG", "C.UTF-8")

    handed_on = inherited_environment()

    assert handed_on["LANG"] == "C.UTF-8"
    assert not {"AIRFLOW_HOME", "ANOMALY_DATABASE_URL", "PYTHONDONTWRITEBYTECODE"} & set(handed_on)
