"""The page of all settings, made from the fields of the settings classes."""

import inspect
from enum import EnumMeta

from pydantic.fields import FieldInfo

from anomaly.settings import GROUPS, PREFIX
from docgen import NOTE

_INTRODUCTION = """\
# Settings

Settings are environment variables, or lines of the file `anomaly.toml`. Set them where Airflow
parses DAGs and runs tasks, and where the command line runs. A wrong value or an unknown name is
refused at start, by name. `anomaly config` shows what is in force, and where it comes from.

`anomaly.toml` is the file that `ANOMALY_CONFIG_FILE` names, else the one in the working directory,
else the one in `AIRFLOW_HOME`. A setting has the name of its variable there, without `ANOMALY_` and
in small letters, at the top or in the table of its group (`[meter_table]`, `[meter]`, ...).
Environment variables win over the file.

Tasks take the database from Airflow's connection `anomaly_db`; the command line takes it
from `ANOMALY_DATABASE_URL`."""


def settings_page() -> str:
    """The page as Markdown: a table per group of settings."""
    lines = [NOTE, _INTRODUCTION]
    for name, group in GROUPS.items():
        lines += ["", f"## {_heading(name)}", "", inspect.getdoc(group) or ""]
        lines += ["", "| variable | default | meaning |", "|---|---|---|"]
        lines += [_row(field, info) for field, info in group.model_fields.items()]
    return "\n".join(lines) + "\n"


def _heading(group: str) -> str:
    words = group.replace("_", " ")
    return "DAGs" if words == "dags" else words.capitalize()


def _row(name: str, field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True)
    shown = getattr(default, "value", default)
    allowed = ""
    if isinstance(field.annotation, EnumMeta):
        allowed = " (" + ", ".join(f"`{item.value}`" for item in field.annotation) + ")"
    text = f"`{shown}`" if shown not in ("", {}) else ""
    return f"| `{PREFIX}{name.upper()}` | {text} | {field.description}{allowed} |"
