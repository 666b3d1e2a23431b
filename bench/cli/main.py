"""The ``bench`` command: its commands by name, each in a module of its own that is imported when it is used.

So ``bench --help`` and ``bench list`` answer at once, whatever the other commands need.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

import bench
from bench.errors import BenchError, printable, unknown

# Name -> what `bench --help` says of it; its module is bench.cli.NAME, with an underscore for a dash, and
# holds it as `command`.
COMMANDS = {
    "run": "Run a study and print its table.",
    "table": "Print the tables of a study that was run.",
    "report": "A study as one HTML page.",
    "figure": "Draw a figure of a study that was run.",
    "rescore": "Measure stored scores again: other metrics, no training.",
    "compare": "Compare a study's methods: intervals, ranks, tests.",
    "list": "List methods, datasets, protocols, encoders, executors, studies.",
    "split": "Print the split of one trial.",
    "data": "Check a dataset's files.",
    "prompts": "Print a dataset's prompts as a file to edit.",
    "evaluate": "Metrics of anybody's anomaly maps and masks.",
    "explain-gap": "The same scores under all metric protocols.",
    "check": "Compare numbers with pinned and reported ones.",
    "pin": "Keep numbers to be checked against.",
    "audit": "Check numbers that papers report against each other.",
    "cache": "What frozen features are kept on disk.",
}


class _UsersError(click.ClickException):
    exit_code = 2


class _Group(click.Group):
    """Imports a command when it is called, and turns errors meant for users into a message and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f"bench.cli.{name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise _UsersError(str(unknown("command", args[0], COMMANDS)))
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BenchError as error:
            raise _UsersError("\n".join(map(printable, str(error).split("\n")))) from None
        except BrokenPipeError:  # `bench table | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(141)
        except OSError as error:
            if not error.filename:
                raise
            raise _UsersError(printable(f"{error.filename}: {error.strerror}")) from None


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(bench.__version__, prog_name="bench")
def main() -> None:
    """Compare zero-shot anomaly detectors: same splits, same metrics, every number traceable.

    \b
    bench run                                                  # no data, no downloads: minutes
    bench run --methods promptad,devnet --dataset mvtec --data-root DIR
    bench table --format latex
    """
