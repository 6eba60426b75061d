"""The page of all commands with their options, made from the command line's own help."""

from collections.abc import Iterator
from enum import EnumMeta
from pathlib import Path
from typing import Any

from typer.core import TyperGroup

from anomaly.cli.app import COMMANDS, load
from docgen import NOTE

_INTRODUCTION = """\
# Command line

`anomaly` does what the DAGs do, by the same functions. It takes the database from
`ANOMALY_DATABASE_URL` and everything else from the same [settings](settings.md) as the DAGs.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | an error: one line on standard error says what was found and what to do |
| 2 | the command was written wrongly |
| 3 | `status` or `doctor` found something that needs attention; `train`: the gate refused |

Every command takes `--help`. `anomaly --version` prints the version. Dates and times are
written as `2017-03-07` or `2017-03-07T04:45Z`; an end is never included."""

_KINDS = {bool: "", str: "text", int: "number", Path: "path"}


def command_line_page() -> str:
    """The page as Markdown: a section per command."""
    lines = [NOTE, _INTRODUCTION]
    whole = TyperGroup(name="anomaly", commands={name: load(name) for name in COMMANDS})
    for name, command in _commands(whole, "anomaly"):
        lines += ["", f"## `{name}`", "", (command.help or "").strip()]
        lines += ["", "```", f"{name}{_usage(command)}", "```"]
        rows = [_row(parameter) for parameter in _shown(command)]
        if rows:
            lines += ["", "| | type | meaning |", "|---|---|---|", *rows]
    return "\n".join(lines) + "\n"


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Every command that does something by itself; a group counts where it takes options."""
    for word, below in sorted(getattr(command, "commands", {}).items()):
        if not hasattr(below, "commands") or _shown(below):
            yield f"{name} {word}", below
        yield from _commands(below, f"{name} {word}")


def _shown(command: Any) -> list[Any]:
    return [parameter for parameter in command.params if not parameter.hidden]


def _is_argument(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "argument")


def _usage(command: Any) -> str:
    words = [
        _argument(parameter) if _is_argument(parameter) else f"{parameter.opts[0]} ..."
        for parameter in _shown(command)
        if _is_argument(parameter) or parameter.required
    ]
    if any(not _is_argument(p) and not p.required for p in _shown(command)):
        words.append("[options]")
    return "".join(f" {word}" for word in words)


def _argument(parameter: Any) -> str:
    name = parameter.name.upper() + ("..." if parameter.nargs == -1 else "")
    return name if parameter.required else f"[{name}]"


def _row(parameter: Any) -> str:
    name = parameter.name.upper() if _is_argument(parameter) else ", ".join(parameter.opts)
    return f"| `{name}` | {_kind(parameter)} | {_meaning(parameter)} |"


def _kind(parameter: Any) -> str:
    annotation = parameter.type_descriptor.annotation
    if isinstance(annotation, EnumMeta):
        return ", ".join(f"`{item.value}`" for item in annotation)
    return _KINDS.get(annotation, "words")


def _meaning(parameter: Any) -> str:
    text = (parameter.help or "").replace("|", "\\|")
    if parameter.required:
        return f"{text} Required."
    if parameter.default and not _is_argument(parameter) and not parameter.is_flag:
        return f"{text} Default: `{parameter.default}`."
    return text
