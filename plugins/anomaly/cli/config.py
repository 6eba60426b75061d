"""``anomaly config``: the settings in force, and where each comes from."""

from typing import Annotated, Any

import typer

from anomaly.cli.console import AsCsv, AsJson, print_list
from anomaly.settings import PREFIX, settings_in_force
from anomaly.wording import without_secrets


def config(
    changed: Annotated[
        bool, typer.Option("--changed", help="Only settings that are not the default.")
    ] = False,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Show the settings in force, and where each comes from.

    Environment variables win over anomaly.toml, which is looked for in ANOMALY_CONFIG_FILE, in the
    working directory and in AIRFLOW_HOME.

    Example: anomaly config --changed
    """
    settings, sources = settings_in_force()
    rows = [
        {
            "setting": PREFIX + name.upper(),
            "value": _shown(value, as_json),
            "from": sources.get(name, "default"),
        }
        for name, value in settings.values().items()
        if name in sources or not changed
    ]
    print_list("Settings", rows, ("setting", "value", "from"), as_json=as_json, as_csv=as_csv)


def _shown(value: Any, as_json: bool) -> Any:
    """A value without passwords; for people as text."""
    text = value if isinstance(value, str) else str(value)
    return value if as_json and not isinstance(value, str) else without_secrets(text)
