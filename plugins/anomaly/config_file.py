"""The file ``anomaly.toml``: settings for those who do not want environment variables.

The first of these is read, and only that one: the file that ``ANOMALY_CONFIG_FILE`` names,
``anomaly.toml`` in the working directory, ``anomaly.toml`` in the folder ``AIRFLOW_HOME``.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path

from anomaly.errors import SettingsError

NAME = "anomaly.toml"
VARIABLE = "ANOMALY_CONFIG_FILE"


def find_config_file(environment: Mapping[str, str], folder: Path | None) -> Path | None:
    """The file to read, or None.

    Parameters
    ----------
    environment : mapping of str to str
        Where ``ANOMALY_CONFIG_FILE`` and ``AIRFLOW_HOME`` are looked up.
    folder : Path or None
        Also look in this folder.

    Raises
    ------
    SettingsError
        When ``ANOMALY_CONFIG_FILE`` names no file.
    """
    if named := environment.get(VARIABLE):
        if not Path(named).is_file():
            raise SettingsError(f"{VARIABLE} is {named!r}: there is no such file")
        return Path(named)
    home = environment.get("AIRFLOW_HOME")
    folders = [folder, Path(home).expanduser() if home else None]
    return next((file for f in folders if f and (file := f / NAME).is_file()), None)


def read_config_file(file: Path, groups: Mapping[str, str]) -> dict[str, object]:
    """Settings of a file by the name of their field.

    A setting may stand at the top or in the table of its group.

    Parameters
    ----------
    groups : mapping of str to str
        Name of each field's group.

    Raises
    ------
    SettingsError
        When the file cannot be read, or a field stands in the wrong group or twice.
    """
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{file} cannot be read: {error}; correct it, it is TOML") from None
    found: dict[str, object] = {}
    for name, value in content.items():
        inside = (
            value if name in set(groups.values()) and isinstance(value, dict) else {name: value}
        )
        for field, given in inside.items():
            if field in found:
                raise SettingsError(f"{file} has {field} twice: remove one of them")
            if inside is value and groups.get(field, name) != name:
                raise SettingsError(
                    f"{file} has {field} in [{name}]: it belongs to [{groups[field]}]"
                )
            found[field] = given
    return found
