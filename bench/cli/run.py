"""``bench run``: a study from its options to its table."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.api.run import TOGETHER_ON_GPU
from bench.cli._options import best_option, data_options, one_study, read_metrics, store_option
from bench.cli.table import print_tables
from bench.errors import BenchError
from bench.metrics.registry import MEASURED
from bench.report.tables.study import PLAIN
from bench.store.store import Store
from bench.tools.devices import PRECISIONS

if TYPE_CHECKING:
    from bench.executors import Executor
    from bench.report.tables.model import Best
    from bench.study.plan import Plan
    from bench.study.study import Study
    from bench.study.task import Task


@click.command("run")
@click.option(
    "--study",
    "study_name",
    multiple=True,
    callback=one_study,
    help="A shipped study (bench list studies) or a YAML file.",
)
@click.option("--name", help="Name of the study, for bench table and bench status.  [default: made of its trials]")
@click.option("--methods", help="Methods with options: promptad[cmi=off],devnet.")
@click.option("--set", "settings", multiple=True, help="Option of all methods that have it: epochs=2,dra.n_ref=3.")
@data_options
@click.option("--categories", help="Target categories, with commas.  [default: all]")
@click.option("--shots", help="Labelled anomalies per seen category, with commas.  [default: 1,10]")
@click.option("--seeds", help="How many seeds, or which: 10, or 0,3,7.  [default: 1; the paper has 10]")
@click.option("--seed", type=click.IntRange(min=0), help="This seed alone; repeats one trial.")
@click.option("--encoder", help="Text-image encoder for all methods: openai/ViT-B-16, pocket/clip.")
@click.option("--backbone", help="Trainable backbone for all methods: torchvision/resnet18.")
@click.option("--weights", multiple=True, help="Local weights file: FILE, or ENCODER=FILE.")
@click.option("--prompts", type=click.Path(path_type=Path), help="Prompt file (bench prompts shows one).")
@click.option("--device", help="cpu, cuda, cuda:1, mps.  [default: the best there is]")
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    help="Of float32 products: high is TF32 on a GPU, medium bfloat16 for baselines.  [default: highest]",
)
@click.option("--workers", type=click.IntRange(min=0), help="Trials side by side; 0 runs in this process.")
@click.option(
    "--together",
    type=click.IntRange(min=1),
    help=f"Trials of one target to fit as one where a method can.  [default: {TOGETHER_ON_GPU} on a GPU, else 1]",
)
@click.option(
    "--executor",
    "executor_name",
    default="local",
    show_default=True,
    help="Where trials run: local, ray[gpus=0.25].",
)
@click.option("--ray-address", help="Ray cluster to run on, HOST:PORT or auto: --executor ray[address=...].")
@click.option("--time-limit", type=float, metavar="SECONDS", help="End a trial that takes longer; it has failed.")
@click.option("--allow-leak", is_flag=True, help="Run weights that have learned from the data tested on; marked.")
@click.option("--keep-detectors", is_flag=True, help="Keep what is trained in the store, for bench predict.")
@click.option("--metrics", help=f"Tables to print: {','.join(MEASURED)}.")
@best_option
@click.option("--quiet", "-q", is_flag=True, help="Show no progress: no bar, no line for each trial that ends.")
@click.option("--dry-run", is_flag=True, help="Check everything, list the trials, estimate their time; run none.")
@store_option
def command(
    study_name: str | None,
    methods: str | None,
    store: Path,
    workers: int | None,
    together: int | None,
    executor_name: str,
    ray_address: str | None,
    time_limit: float | None,
    keep_detectors: bool,
    metrics: str | None,
    best: Best | None,
    quiet: bool,
    dry_run: bool,
    **options: Any,
) -> None:
    """Run a study and print its table.

    Without options it runs the shipped study "quick" on the shipped data; with options but without --study, what
    they say, at the methods' full training length. What has been run before is not run again; after an
    interruption the same command finishes the rest. Meanwhile, bench status tells how far it is.
    """
    from bench.api.progress import terminal
    from bench.api.run import build_executor, left, plan_study

    console = terminal()
    chosen_metrics = read_metrics(metrics)
    study = study_of(study_name, methods, options)
    results = Store(store)
    executor = build_executor(
        executor_name, results, workers=workers, time_limit=time_limit, ray_address=ray_address
    )
    busy = console.status("checking the data and looking up weights")
    with busy if console.is_terminal else contextlib.nullcontext():
        plan = plan_study(study, results, executor, _say)
    todo = left(plan, results, _say)
    if dry_run:
        _print_trials(plan, todo, results, executor, workers)
        return
    failed = _carry_out(plan, todo, results, executor, together, keep_detectors, quiet)
    layout = PLAIN if metrics else plan.study.layout or PLAIN
    print_tables(results, plan.study.name, chosen_metrics, layout=layout, best=best)
    click.echo(f"records: {results.root}   again: bench table --study {plan.study.name}", err=True)
    if failed:
        raise click.exceptions.Exit(1)


def _say(text: str) -> None:
    click.echo(text, err=True)


def study_of(study_name: str | None, methods: str | None, options: dict[str, Any]) -> Study:
    """The study that the command line asks for: a named one, changed by whatever else was given."""
    from bench.study.build import build_study

    numbers = None if options["seeds"] is None else _numbers("--seeds", options["seeds"])
    seeds: int | tuple[int, ...] | None = numbers
    if options["seed"] is not None:
        if numbers:
            raise BenchError("--seed and --seeds exclude each other")
        seeds = (options["seed"],)
    elif numbers and "," not in options["seeds"]:
        seeds = numbers[0]  # one number says how many seeds, a list says which
    shots = None if options["shots"] is None else _numbers("--shots", options["shots"])
    same = ("settings", "protocol", "train_dataset", "categories", "encoder", "backbone", "prompts", "allow_leak")
    study, note = build_study(
        study_name,
        name=options["name"],
        methods=methods,
        dataset=options["datasets"],
        data_root=options["roots"] or None,
        train_root=options["train_roots"] or None,
        shots=shots,
        seeds=seeds,
        weights=options["weights"],
        device=options["device"],
        precision=options["precision"],
        **{name: options[name] for name in same},
    )
    if note:
        _say(f"note: {note}")
    return study


def _numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        numbers = ()
    if not numbers:
        raise BenchError(f"{option} {text}: expected whole numbers, such as 1,10")
    return numbers


def _carry_out(
    plan: Plan,
    todo: tuple[Task, ...],
    store: Store,
    executor: Executor,
    together: int | None,
    keep_detectors: bool,
    quiet: bool,
) -> bool:
    """Run what is left; True if a trial failed."""
    from bench.api.progress import shown_progress
    from bench.api.run import NOTHING_KEPT, carry_out, choose_workers, interruption, write_down
    from bench.executors import log_path
    from bench.executors.engine import Interrupted

    if not todo:
        write_down(plan, store)  # its trials may have run as those of other studies
        _say("nothing to do: every trial is in the store already")
        if keep_detectors:
            _say(f"note: {NOTHING_KEPT}")
        return False
    records = list(store.records())
    choose_workers(executor, todo, records, _say)
    try:
        with shown_progress(plan, todo, store, records, quiet=quiet) as listener:
            summary = carry_out(plan, todo, store, executor, listener, together, keep_detectors)
    except Interrupted as stop:
        _say(interruption(plan, todo, stop.summary))
        raise click.exceptions.Exit(130) from None
    for task, reason in summary.failures:
        _say(f"failed: {task.title}: {reason}")
        _say(f"        {store.record_path(task.key)}")
        if (log := log_path(store.root / "logs", task)).exists():
            _say(f"        {log}")
    return bool(summary.failures)


def _print_trials(
    plan: Plan, todo: tuple[Task, ...], store: Store, executor: Executor, workers: int | None
) -> None:
    """List all trials and what is known of how long those that are left will take."""
    from bench.api.run import choose_workers
    from bench.executors.local import LocalExecutor, visible_gpus
    from bench.study.estimate import ROUGH, estimate, in_words, sizes_of_splits

    left = {task.key for task in todo}
    records = list(store.records()) if todo else []
    expected = estimate(todo, records, plan.study.device, sizes_of_splits(store, plan.manifests))
    for task in plan.tasks:
        state = "to run" if task.key in left else "done"
        seconds = expected.seconds.get(task.key)
        about = "" if seconds is None else f"~ {in_words(seconds)} {ROUGH * (task.key in expected.rough)}"
        click.echo(f"{task.key[:12]}  {state:8}{about:14}{task.dataset} · {task.title}")
    choose_workers(executor, todo, records, _say)
    if isinstance(executor, LocalExecutor):
        workers = executor.workers
        if workers is None and expected.seconds:
            workers = len(visible_gpus(plan.study.device))
    for line in expected.lines(min(workers or 1, len(todo))):
        click.echo(line, err=True)
