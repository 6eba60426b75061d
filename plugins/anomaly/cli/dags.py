"""``anomaly dags``: where the DAG files are, and how Airflow gets them."""

import configparser
import json
import os
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from anomaly.cli.console import say
from anomaly.errors import SettingsError
from anomaly.installation import bundled_folder

BUNDLES = "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"
_OPTION = "dag_bundle_config_list"
_LOCAL = "airflow.dag_processing.bundles.local.LocalDagBundle"
_USERS_OWN = {"name": "dags-folder", "classpath": _LOCAL, "kwargs": {}}

dags_app = typer.Typer(help="Where the DAG files are.", no_args_is_help=True)


@dags_app.command("path")
def dags_path() -> None:
    """Print the folder of the DAG files.

    Example: AIRFLOW__CORE__DAGS_FOLDER=$(anomaly dags path)
    """
    typer.echo(bundled_folder("dags"))


@dags_app.command("bundle")
def dags_bundle() -> None:
    """Print the setting by which Airflow reads the DAGs from where they are installed.

    Bundles that the environment or airflow.cfg names already stay, else Airflow's own folder.

    Example: export "$(anomaly dags bundle)"
    """
    ours = {"name": "anomaly", "classpath": _LOCAL, "kwargs": {"path": str(bundled_folder("dags"))}}
    others = [bundle for bundle in _bundles_named() if bundle.get("name") != ours["name"]]
    typer.echo(f"{BUNDLES}={json.dumps([*others, ours])}")


@dags_app.command("copy")
def dags_copy(
    folder: Annotated[Path, typer.Argument(help="Where to put them; it is made if need be.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace files of these names that differ.")
    ] = False,
) -> None:
    """Copy the DAG files, for an Airflow that reads a folder or a repository.

    Copy them again with every new version of the wheel.

    Example: anomaly dags copy $AIRFLOW_HOME/dags/anomaly
    """
    files = sorted(bundled_folder("dags").glob("*.py"))
    other = [
        file.name
        for file in files
        if (there := folder / file.name).exists() and there.read_bytes() != file.read_bytes()
    ]
    if other and not replace:
        raise SettingsError(
            f"{folder} has another {', '.join(other)}: nothing was copied; if it is of an older"
            " version of this product, add --replace, else choose another folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copyfile(file, folder / file.name)
    say(f"{len(files)} DAG files are in {folder}")


def _bundles_named() -> list[dict[str, Any]]:
    """The bundles that Airflow reads now, by its environment or its airflow.cfg."""
    where, text = BUNDLES, os.environ.get(BUNDLES, "")
    if not text:
        home = Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser()
        where = f"{_OPTION} in {home / 'airflow.cfg'}"
        config = configparser.ConfigParser(interpolation=None, strict=False)
        config.read(home / "airflow.cfg", encoding="utf-8")
        text = config.get("dag_processor", _OPTION, fallback="")
        elsewhere = [
            name
            for suffix in ("_cmd", "_secret")
            for name in (f"{BUNDLES}{suffix.upper()}", f"{_OPTION}{suffix}")
            if name in os.environ or config.has_option("dag_processor", name)
        ]
        if elsewhere and not text:
            raise SettingsError(
                f"Airflow gets its bundles by {elsewhere[0]}: add ours there; its path is"
                f" {bundled_folder('dags')}"
            )
    if not text.strip():
        return [_USERS_OWN]
    try:
        bundles = json.loads(text)
    except ValueError:
        bundles = None
    if not isinstance(bundles, list) or not all(isinstance(one, dict) for one in bundles):
        raise SettingsError(f"{where} is {text!r}: it should be a JSON list, correct it first")
    return bundles
