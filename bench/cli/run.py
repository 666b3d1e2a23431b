"""``bench run``: a study from its options to its table."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli._options import (
    best_option,
    data_options,
    read_metrics,
    read_roots,
    read_train_roots,
    read_weights,
    store_option,
)
from bench.cli.table import PLAIN, print_tables
from bench.errors import BenchError, unknown
from bench.metrics.registry import MEASURED
from bench.store.store import FORMAT, Store
from bench.tools.devices import PRECISIONS
from bench.tools.text import count

TOGETHER_ON_GPU = 20  # ten seeds at two numbers of shots

if TYPE_CHECKING:
    from bench.executors import Executor
    from bench.report.tables.model import Best
    from bench.study.plan import Plan
    from bench.study.study import Study
    from bench.study.task import Task


@click.command("run")
@click.option("--study", "study_name", help="A shipped study (bench list studies) or a YAML file.")
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

    Without options it runs the shipped study "quick" on the shipped data. What has been run before is not
    run again; after an interruption the same command finishes the rest.
    """
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    chosen_metrics = read_metrics(metrics)
    study = study_of(study_name, methods, options)
    _check_layout(study.layout)
    results = Store(store)
    executor = _executor(executor_name, ray_address, time_limit, workers, results)
    if study.device != "auto":
        executor.on_gpu(study.device)  # a device that is not there is said before the data are read
    plan = _prepare(study, results, console)
    todo = _left(plan, results)
    if dry_run:
        _print_trials(plan, todo, results, executor, workers)
        return
    failures = _execute(plan, todo, results, executor, together, keep_detectors, console, quiet)
    _remember(plan, todo, results)
    layout = PLAIN if metrics else plan.study.layout or PLAIN
    print_tables(results, plan.study.name, chosen_metrics, layout=layout, best=best)
    click.echo(f"records: {results.root}   again: bench table --study {plan.study.name}", err=True)
    if failures:
        raise click.exceptions.Exit(1)


def study_of(study_name: str | None, methods: str | None, options: dict[str, Any]) -> Study:
    """The study that the command line asks for: a named one, changed by whatever else was given."""
    from bench.study.files import load_study
    from bench.study.sources import parse_sources
    from bench.study.study import Study, first_seeds, set_options
    from bench.tools.spec import parse_spec, split_list, split_specs

    given = {key: value for key, value in options.items() if value not in (None, ()) and value is not False}
    # Without a study and with options of its own, the command line is the whole study; alone it is the quick one.
    alone = study_name is None and (methods or given.keys() - {"device", "precision", "weights"})
    fields: dict[str, Any] = {} if alone else load_study(study_name or "quick")
    own_name = fields.pop("name", "")
    fields.setdefault("methods", tuple(split_specs("clip,devnet,promptad")))
    if methods:
        fields["methods"] = tuple(split_specs(methods))
    # After --methods, so that --set changes what is run, whichever of the two named it.
    settings = [part for text in options["settings"] for part in split_list(text)]
    fields["methods"] = set_options(fields["methods"], settings)
    if options["datasets"]:
        fields["datasets"] = tuple(split_specs(options["datasets"]))
    if options["protocol"]:
        fields["protocols"] = tuple(split_specs(options["protocol"]))
    if options["train_dataset"]:
        fields["source"] = parse_sources(options["train_dataset"])
    if options["categories"]:
        fields["categories"] = tuple(part.strip() for part in options["categories"].split(",") if part.strip())
    if options["shots"]:
        fields["shots"] = _numbers("--shots", options["shots"])
    if options["seed"] is not None:
        if options["seeds"]:
            raise BenchError("--seed and --seeds exclude each other")
        fields["seeds"] = (options["seed"],)
    elif options["seeds"]:
        numbers = _numbers("--seeds", options["seeds"])
        # One number says how many seeds, a list says which.
        fields["seeds"] = first_seeds(numbers[0]) if "," not in options["seeds"] else numbers
    for key in ("encoder", "backbone", "prompts", "device", "precision", "allow_leak"):
        if options[key]:
            fields[key] = options[key]
    # Nothing to download: pocket ships with the package.
    fields.setdefault("datasets", (parse_spec("pocket"),) if alone else ())
    fields["roots"] = read_roots(options["roots"], fields["datasets"]) if fields["datasets"] else {}
    fields["roots"] |= read_train_roots(options["train_roots"], fields.get("source"))
    fields["weights"] = read_weights(options["weights"])
    # The name of a study stands for exactly its trials: one that was changed gets a name of its own later.
    changed = bool(methods or given.keys() - {"device", "precision", "weights", "roots"})
    return Study(name="" if changed else own_name, **fields)


def _check_layout(name: str) -> None:
    from bench.report.tables.paper import LAYOUTS

    if name and name not in LAYOUTS:
        raise unknown("layout", name, LAYOUTS)


def _numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        numbers = ()
    if not numbers:
        raise BenchError(f"{option} {text}: expected whole numbers, such as 1,10")
    return numbers


def _prepare(study: Study, store: Store, console: Any) -> Plan:
    """Look everything up, name the study, and say what is about to happen."""
    from bench.study.plan import prepare
    from bench.study.study import PAPER_SEEDS

    busy = console.status("checking the data and looking up weights")
    with busy if console.is_terminal else contextlib.nullcontext():
        plan = prepare(study, store)
    # A study without a name is called after its data and the hash of its trials: the same trials, the same name.
    if not study.name:
        datasets = "+".join(dict.fromkeys(spec.name for spec in study.datasets))
        name = "-".join(filter(None, [study.layout, datasets, plan.hash[:8]]))
        plan = dataclasses.replace(plan, study=dataclasses.replace(study, name=name))
    for note in plan.notes:
        click.echo(f"note: {note}", err=True)
    labels = ", ".join(dict.fromkeys(task.method for task in plan.tasks))
    click.echo(f"study {plan.study.name}: {labels}", err=True)
    if len(study.seeds) < PAPER_SEEDS and any(spec.name != "pocket" for spec in study.datasets):
        seeds = count(len(study.seeds), "seed")
        click.echo(f"note: {seeds}; the paper averages over {PAPER_SEEDS} (--seeds {PAPER_SEEDS})", err=True)
    return plan


def _left(plan: Plan, store: Store) -> tuple[Task, ...]:
    """The trials that are not done: looked up once, since each look reads a record."""
    todo = tuple(task for task in plan.tasks if not store.done(task.key))
    done = len(plan.tasks) - len(todo)
    click.echo(f"{count(len(plan.tasks), 'trial')}, {done} done, {len(todo)} to run", err=True)
    return todo


def _executor(
    text: str, ray_address: str | None, time_limit: float | None, workers: int | None, store: Store
) -> Executor:
    """The executor that the options ask for; those of its own win over the general ones."""
    from bench.tools.registry import EXECUTORS
    from bench.tools.spec import build_config, parse_spec

    spec = parse_spec(text)
    if ray_address is not None:
        spec = dataclasses.replace(spec, name="ray").with_options(address=ray_address)
    if time_limit is not None:
        spec = spec.with_options(time_limit=f"{time_limit:g}")
    cls = EXECUTORS.load(spec.name)
    executor: Executor = cls(build_config(cls.Config, spec, "executor"), workers, store.root / "logs")
    return executor


def _execute(
    plan: Plan,
    todo: tuple[Task, ...],
    store: Store,
    executor: Executor,
    together: int | None,
    keep: bool,
    console: Any,
    quiet: bool,
) -> bool:
    """Run what is left; True if a trial failed."""
    from bench.cli._progress import ProgressListener
    from bench.executors import log_path
    from bench.executors.engine import Interrupted, execute
    from bench.executors.local import LocalExecutor
    from bench.study.estimate import durations_of, sizes_of_splits
    from bench.tools.files import allow_many_open_files

    if not todo:
        click.echo("nothing to do: every trial is in the store already", err=True)
        return False
    allow_many_open_files()  # every trial in flight holds one
    records = list(store.records())
    if isinstance(executor, LocalExecutor) and (chosen := executor.choose_workers(todo, records)):
        click.echo(chosen, err=True)
    durations = durations_of(todo, records, plan.study.device, sizes_of_splits(store, plan.manifests))
    before = len(plan.tasks) - len(todo)
    progress = ProgressListener(
        console, len(plan.tasks), before, todo=todo, durations=durations, record=store.record, quiet=quiet
    )
    try:
        with progress as listener:
            # The bar counts all trials, the engine runs those that are left.
            rest = dataclasses.replace(plan, tasks=todo)
            if together is None:  # a GPU needs many trials at once to be filled; a CPU's cache has room for one
                together = TOGETHER_ON_GPU if executor.on_gpu(plan.study.device) else 1
            summary = execute(rest, store, executor, listener, together, keep)
    except Interrupted as stop:
        _remember(plan, todo, store)
        left = len(todo) - sum(stop.summary.ended.values())
        done = f"interrupted; {left} of {count(len(plan.tasks), 'trial')} left: the same command runs the rest"
        click.echo(done, err=True)
        raise click.exceptions.Exit(130) from None
    for task, reason in summary.failures:
        click.echo(f"failed: {task.title}: {reason}", err=True)
        click.echo(f"        {store.record_path(task.key)}", err=True)
        if (log := log_path(store.root / "logs", task)).exists():
            click.echo(f"        {log}", err=True)
    return bool(summary.failures)


def _remember(plan: Plan, todo: tuple[Task, ...], store: Store) -> None:
    """Keep what the study consists of, for ``bench table``; also the trials that are still missing."""
    from bench.trial.recording import describe

    content = {
        "name": plan.study.name,
        "hash": plan.hash,
        "keys": [task.key for task in plan.tasks],
        "methods": list(dict.fromkeys(task.method for task in plan.tasks)),
        "layout": plan.study.layout,
        # Their descriptions are kept, since a table shows missing cells and there is no record to read them from.
        "missing": [
            {"format": FORMAT, "key": task.key, "status": "missing", "reason": None, "trial": describe(task)}
            for task in todo
            if store.document(task.key) is None
        ],
    }
    store.write_study(plan.study.name, content)


def _print_trials(
    plan: Plan, todo: tuple[Task, ...], store: Store, executor: Executor, workers: int | None
) -> None:
    """List all trials and what is known of how long those that are left will take."""
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
    if isinstance(executor, LocalExecutor):
        if chosen := executor.choose_workers(todo, records):
            click.echo(chosen, err=True)
        workers = executor.workers
        if workers is None and expected.seconds:
            workers = len(visible_gpus(plan.study.device))
    for line in expected.lines(min(workers or 1, len(todo))):
        click.echo(line, err=True)
