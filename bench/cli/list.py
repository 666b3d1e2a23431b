"""``bench list``."""

from __future__ import annotations

import click


@click.command("list")
@click.argument(
    "what",
    type=click.Choice(["methods", "datasets", "encoders", "executors", "studies"]),
    required=False,
)
def command(what: str | None) -> None:
    """List what can be named: methods, datasets, encoders, executors, studies."""
    from bench.cli import _listing as listing

    for section in [what] if what else ["methods", "datasets", "encoders", "executors", "studies"]:
        click.echo("\n".join(listing.section(section)))
