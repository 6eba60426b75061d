"""The file ``anomaly.toml``: settings for those who do not want environment variables.

The first of these is read, and only that one: the file that ``ANOMALY_CONFIG_FILE`` names,
``anomaly.toml`` in the working directory if it belongs to this account or to root, ``anomaly.toml``
in the folder ``AIRFLOW_HOME``.
"""

import os
import stat
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
        if _owner(Path(named)) is None:
            raise SettingsError(f"{VARIABLE} is {named!r}: there is no such file to read")
        return Path(named)
    # What lies in a folder that many may write to could name another database, and other models.
    if folder is not None and _owner(folder / NAME) in (os.geteuid(), 0):
        return folder / NAME
    home = environment.get("AIRFLOW_HOME")
    if home and _owner(file := Path(home).expanduser() / NAME) is not None:
        return file
    return None


def working_directory() -> Path | None:
    """The working directory; None where it is gone, or closed to this account."""
    try:
        return Path.cwd()
    except OSError:
        return None


def _owner(file: Path) -> int | None:
    """Who a file belongs to; None: there is none, or its folder is closed to this account."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_uid if stat.S_ISREG(found.st_mode) else None


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
    except OSError as error:
        raise SettingsError(
            f"{file} cannot be read: {error.strerror}; let this account read it, or name another"
            " file by ANOMALY_CONFIG_FILE"
        ) from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
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
