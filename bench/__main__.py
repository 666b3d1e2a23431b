"""``python -m bench`` is the command ``bench``."""

from bench.cli.main import main

main(prog_name="bench")
