"""The ``bench`` command: its commands by name, each in a module of its own that is imported when it is used.

So ``bench --help`` and ``bench list`` answer at once, whatever the other commands need.
"""

from __future__ import annotations

import errno
import importlib
import io
import os
import sys
from typing import Any

import click

import bench
from bench.errors import BenchError, printable, unknown

# Name -> its line in `bench --help`; its module is bench.cli.NAME, with an underscore for a dash, and holds it as
# `command`.
COMMANDS = {
    "run": "Run a study and print its table.",
    "fit": "Train a detector and write it to a file.",
    "predict": "Score your own pictures with a detector.",
    "status": "Tell how far a study is, while it runs and after.",
    "table": "Print the tables of a study that was run.",
    "report": "A study as one HTML page.",
    "figure": "Draw a figure of a study that was run.",
    "rescore": "Measure stored scores again: other metrics, no training.",
    "compare": "Compare a study's methods: intervals, ranks, tests.",
    "list": "List methods, datasets, protocols, encoders, executors, studies, runs.",
    "split": "Print the split of one trial.",
    "data": "Check a dataset's files.",
    "prompts": "Print a dataset's prompts as a file to edit.",
    "evaluate": "Metrics of anybody's anomaly maps and masks.",
    "explain-gap": "The same scores under all metric protocols.",
    "check": "Compare numbers with pinned and reported ones.",
    "pin": "Keep numbers to be checked against.",
    "audit": "Check numbers that papers report against each other.",
    "cache": "Show features and detectors that are kept on disk.",
}


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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

    def main(self, *args: Any, **kwargs: Any) -> Any:
        # A terminal or a file may have no character for what is printed (cp1252 has no arrow); a study that has
        # run for hours does not end in an error for that.
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")
        try:
            try:
                return super().main(*args, **kwargs)
            finally:
                sys.stdout.flush()  # here, where an error can still be told
        except OSError as error:
            if error.errno not in _FULL:
                raise
            print(f"Error: the output cannot be written: {error.strerror}", file=sys.stderr)
            _drop_output()
            sys.exit(2)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BenchError as error:
            raise _UsersError(printable(str(error), keep="\n")) from None
        except BrokenPipeError:  # `bench table | head`
            _drop_output()
            ctx.exit(141)
        except OSError as error:
            if not error.filename:
                raise
            raise _UsersError(printable(f"{error.filename}: {error.strerror}")) from None


def _drop_output() -> None:
    """Let Python throw away at its end what could not be printed, without another error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(bench.__version__, prog_name="bench")
def main() -> None:
    """Compare zero-shot anomaly detectors: same splits, same metrics, every number traceable.

    \b
    bench run                                                  # no data, no downloads: minutes
    bench run --methods promptad,devnet --dataset mvtec --data-root DIR
    bench table --format latex
    """
