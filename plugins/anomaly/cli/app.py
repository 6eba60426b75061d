"""The command line ``anomaly``: the names of all commands, and the module that each lives in.

A command's module is imported when the command runs, so that ``anomaly --help`` and the completion
of names need not wait for pandas.
"""

from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from anomaly import __version__

COMMANDS = {
    "migrate": ("migrate", "Bring the database to the current schema; safe to repeat."),
    "doctor": ("doctor", "Look for what is set up wrongly, and say how to mend it."),
    "config": ("config", "Show the settings in force, and where each comes from."),
    "ingest": ("ingest", "Load a file of readings into the meter table, all of it or nothing."),
    "train": ("training", "Train a model version, compare it with the one in force, register it."),
    "score": ("scoring", "Score a range of readings; alerts nobody."),
    "backfill": ("backfill", "Score a past range again; alerts nobody."),
    "reconcile": ("scoring", "Compare readings with verdicts, and score again where they differ."),
    "status": ("status", "Show the state of the deployment, problems first."),
    "metrics": ("metrics", "Print metrics for Prometheus, write them to a file, or serve them."),
    "incidents": ("incidents", "List incidents, and show, acknowledge, silence or label one."),
    "label": ("incidents", "Say what an incident, or a time of a machine, was."),
    "labels": ("labels", "List what people said about machines, and take it back."),
    "alerts": ("alerts", "Send, list, try out and silence alerts."),
    "serve": ("serve", "Serve the API: judge records by HTTP, and tell verdicts and incidents."),
    "keys": ("keys", "Make, list and revoke the keys of the API."),
    "machines": ("machines", "List, describe and remove the machines of the deployment."),
    "sites": ("sites", "Say what energy costs at a site, and what its shifts are."),
    "models": ("models", "List, show, promote, roll back and verify model versions."),
    "evaluate": ("evaluation", "Measure how well faults are found."),
    "dags": ("dags", "Say where the DAG files are, and put them where Airflow looks."),
    "purge": ("purge", "Delete verdicts, history, ledger and alerts that are older than is kept."),
}
"""Each command's module below ``anomaly.cli``, and its line in ``anomaly --help``."""


class Commands(TyperGroup):
    """Commands below a name, each with its whole first sentence in the help."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands; a long line is wrapped, and not cut."""
        rows = [
            (name, (command.help or "").partition("\n\n")[0].replace("\n", " "))
            for name in self.list_commands(ctx)
            if (command := self.get_command(ctx, name)) is not None
        ]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)


class LazyCommands(Commands):
    """Commands that are imported when they are run."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # To be listed: a name and a help. What is run is imported.
        self.commands = {
            name: TyperCommand(name, help=text) for name, (_, text) in COMMANDS.items()
        }

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of all commands, in the order of the help."""
        return list(self.commands)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command to be run, imported."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, load(command.name) if command and command.name else None, rest


app = typer.Typer(
    name="anomaly",
    cls=LazyCommands,
    help="Score machine meter readings: see the README for a first run.",
    no_args_is_help=True,
    rich_markup_mode=None,  # Rich's help takes longer to load, and breaks paragraphs apart
    pretty_exceptions_enable=False,
)


def load(name: str) -> Any:
    """Import a command, or a group of commands, by its name."""
    module = import_module(f"anomaly.cli.{COMMANDS[name][0]}")
    group = getattr(module, f"{name}_app", None)
    if group is None:
        group = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
        group.command(name)(getattr(module, name))
    group.rich_markup_mode, group.info.cls = None, Commands
    group._add_completion = False  # of the whole command line, not of a part
    command: Any = typer.main.get_command(group)
    command.name = name
    return command


def main() -> None:
    """Run the command line; an expected failure prints one line on standard error."""
    try:
        app()
    except Exception as error:
        from anomaly.cli.console import fail
        from anomaly.database.explained_errors import EXPLAINED, explained
        from anomaly.errors import AnomalyError

        if not isinstance(error, (AnomalyError, *EXPLAINED)):
            raise
        fail(*map(str, explained(error).args))


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Score machine meter readings."""
    if show:
        typer.echo(__version__)
        raise typer.Exit


if __name__ == "__main__":
    main()
