"""The ``bench`` command. Each command reads its options, calls the engine, and prints; nothing more.

Heavy imports (torch, pandas) stay inside the commands that need them, so that ``bench --help`` and
``bench list`` answer at once.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import bench
from bench.errors import BenchError
from bench.store import FORMAT

if TYPE_CHECKING:
    from bench.plan import Plan
    from bench.report.formats import Format
    from bench.report.table import Table
    from bench.store import Store
    from bench.study import Study

DEFAULT_STORE = Path("results/runs")
METRICS = ("image_auroc", "image_ap", "image_f1max", "pixel_auroc", "pixel_ap", "pixel_f1max", "aupro")


class _UsersError(click.ClickException):
    exit_code = 2


class _Group(click.Group):
    """Turns the errors meant for users into one message and an exit code, without a stack trace."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BenchError as error:
            raise _UsersError(str(error)) from None
        except BrokenPipeError:  # `bench table | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(141)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(bench.__version__, prog_name="bench")
def main() -> None:
    """Compare zero-shot anomaly detectors: same splits, same metrics, every number traceable.

    \b
    bench run                                                  # no data, no downloads: minutes
    bench run --methods promptad,devnet --dataset mvtec --data-root DIR
    bench table --format latex
    """


def _store_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--store",
        type=click.Path(file_okay=False, path_type=Path),
        default=DEFAULT_STORE,
        show_default=True,
        envvar="BENCH_STORE",
        help="Where records and scores are kept.",
    )(command)


def _data_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for decorate in reversed(
        [
            click.option("--dataset", "--datasets", "datasets", help="Dataset, or several with commas."),
            click.option("--data-root", "roots", multiple=True, help="Its folder: DIR, or DATASET=DIR."),
            click.option("--protocol", help="loo or transfer, with options: loo[types=all]."),
            click.option("--train-dataset", help="With --protocol transfer: the dataset to learn from."),
            click.option("--train-root", type=click.Path(path_type=Path), help="Its folder."),
        ]
    ):
        command = decorate(command)
    return command


# ---------------------------------------------------------------- bench run


@main.command()
@click.option("--study", "study_name", help="A shipped study (bench list studies) or a YAML file.")
@click.option("--methods", help="Methods with options: promptad[cmi=off],devnet.")
@_data_options
@click.option("--categories", help="Target categories, with commas.  [default: all]")
@click.option("--shots", help="Labelled anomalies per seen category, with commas.  [default: 1,10]")
@click.option("--seeds", help="How many seeds, or which: 10, or 0,3,7.  [default: 1; the paper has 10]")
@click.option("--encoder", help="Text-image encoder for all methods: openai/ViT-B-16, pocket/clip.")
@click.option("--backbone", help="Trainable backbone for all methods: torchvision/resnet18.")
@click.option("--weights", multiple=True, help="Local weights file: FILE, or ENCODER=FILE.")
@click.option("--prompts", type=click.Path(path_type=Path), help="Prompt file (bench prompts shows one).")
@click.option("--device", help="cpu, cuda, cuda:1, mps.  [default: the best there is]")
@click.option("--workers", type=click.IntRange(min=0), help="Trials side by side; 0 runs in this process.")
@click.option("--executor", "executor_name", default="local", show_default=True, help="Where trials run.")
@click.option("--metrics", help=f"Tables to print: {','.join(METRICS)}.")
@click.option("--dry-run", is_flag=True, help="Check everything and list the trials; run none.")
@_store_option
def run(
    study_name: str | None,
    methods: str | None,
    store: Path,
    workers: int | None,
    executor_name: str,
    metrics: str | None,
    dry_run: bool,
    **options: Any,
) -> None:
    """Run a study and print its table.

    Without options it runs the shipped study "quick" on the shipped data. What has been run before is not
    run again; after an interruption the same command finishes the rest.
    """
    from rich.console import Console

    from bench.store import Store

    console = Console(stderr=True, highlight=False)
    chosen_metrics = _metrics(metrics)
    study = _study(study_name, methods, options)
    results = Store(store)
    plan = _prepare(study, results, console)
    if dry_run:
        _print_trials(plan, results)
        return
    failures = _execute(plan, results, executor_name, workers, console)
    _remember(plan, results)
    _print_tables(results, plan.study.name, chosen_metrics)
    click.echo(f"records: {results.root}   again: bench table --study {plan.study.name}", err=True)
    if failures:
        raise click.exceptions.Exit(1)


def _study(study_name: str | None, methods: str | None, options: dict[str, Any]) -> Study:
    """The study that the command line asks for: a named one, changed by whatever else was given."""
    from bench.config import parse_spec, split_specs
    from bench.study import Study, load_study

    given = {key: value for key, value in options.items() if value not in (None, ())}
    alone = study_name is None and (methods or given.keys() - {"device", "weights"})
    fields: dict[str, Any] = {} if alone else load_study(study_name or "quick")
    own_name = fields.pop("name", "")
    if methods:
        fields["methods"] = tuple(split_specs(methods))
    if options["datasets"]:
        fields["datasets"] = tuple(split_specs(options["datasets"]))
    if options["protocol"]:
        fields["protocol"] = parse_spec(options["protocol"])
    if options["train_dataset"]:
        fields["source"] = parse_spec(options["train_dataset"])
    if options["categories"]:
        fields["categories"] = tuple(part.strip() for part in options["categories"].split(",") if part.strip())
    if options["shots"]:
        fields["shots"] = _numbers("--shots", options["shots"])
    if options["seeds"]:
        numbers = _numbers("--seeds", options["seeds"])
        fields["seeds"] = tuple(range(numbers[0])) if "," not in options["seeds"] else numbers
    for key in ("encoder", "backbone", "prompts", "device"):
        if options[key]:
            fields[key] = options[key]
    fields.setdefault("methods", tuple(split_specs("clip,devnet,promptad")))
    fields.setdefault("datasets", (parse_spec("pocket"),))
    fields["roots"] = _roots(options["roots"], fields["datasets"])
    if options["train_root"]:
        if fields.get("source") is None:
            raise BenchError("--train-root goes with --train-dataset")
        fields["roots"][f"train:{fields['source'].name}"] = options["train_root"]
    fields["weights"] = _weights(options["weights"])
    # The name of a study stands for exactly its trials: one that was changed gets a name of its own later.
    changed = bool(methods or given.keys() - {"device", "weights", "roots"})
    return Study(name="" if changed else own_name, **fields)


def _numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise BenchError(f"{option} {text}: expected whole numbers, such as 1,10") from None


def _roots(given: tuple[str, ...], datasets: tuple[Any, ...]) -> dict[str, Path]:
    names = [spec.name for spec in datasets]
    roots = {}
    for text in given:
        name, equals, folder = text.partition("=")
        if equals and name in names:
            roots[name] = Path(folder).expanduser()
        elif len(set(names)) == 1:
            roots[names[0]] = Path(text).expanduser()
        else:
            raise BenchError(f"--data-root {text}: say of which dataset, {names[0]}=DIR")
    return roots


def _weights(given: tuple[str, ...]) -> dict[str, Path]:
    weights = {}
    for text in given:
        name, equals, file = text.rpartition("=")
        if not equals or Path(text).exists():
            name, file = "", text
        weights[name] = Path(file).expanduser()
    return weights


def _metrics(text: str | None) -> tuple[str, ...]:
    from bench.errors import unknown

    chosen = tuple(part.strip() for part in (text or "image_auroc,pixel_auroc").split(",") if part.strip())
    for name in chosen:
        if name not in METRICS:
            raise unknown("metric", name, METRICS)
    return chosen


def _prepare(study: Study, store: Store, console: Any) -> Plan:
    """Look everything up, name the study, and say what is about to happen."""
    from bench.plan import prepare
    from bench.study import PAPER_SEEDS

    with console.status("checking the data and looking up weights") if console.is_terminal else _nothing():
        plan = prepare(study, store)
    if not study.name:
        datasets = "+".join(dict.fromkeys(spec.name for spec in study.datasets))
        plan = dataclasses.replace(plan, study=dataclasses.replace(study, name=f"{datasets}-{plan.hash[:8]}"))
    for note in plan.notes:
        click.echo(f"note: {note}", err=True)
    done = sum(store.done(task.key) for task in plan.tasks)
    labels = ", ".join(dict.fromkeys(task.method for task in plan.tasks))
    click.echo(f"study {plan.study.name}: {labels}", err=True)
    click.echo(f"{len(plan.tasks)} trials, {done} done, {len(plan.tasks) - done} to run", err=True)
    if len(study.seeds) < PAPER_SEEDS and any(spec.name != "pocket" for spec in study.datasets):
        seeds = f"{len(study.seeds)} seed{'s' if len(study.seeds) > 1 else ''}"
        click.echo(f"note: {seeds}; the paper averages over {PAPER_SEEDS} (--seeds {PAPER_SEEDS})", err=True)
    return plan


def _nothing() -> Any:
    import contextlib

    return contextlib.nullcontext()


def _execute(plan: Plan, store: Store, executor_name: str, workers: int | None, console: Any) -> bool:
    """Run what is left; True if a trial failed."""
    from bench.engine import Interrupted, execute
    from bench.progress import ProgressListener
    from bench.registry import EXECUTORS

    todo = [task for task in plan.tasks if not store.done(task.key)]
    if not todo:
        click.echo("nothing to do: every trial is in the store already", err=True)
        return False
    executor_class = EXECUTORS.load(executor_name)
    if workers is None:
        workers = _default_workers(plan.study.device)
    executor = executor_class(min(workers, len(todo)))
    try:
        with ProgressListener(console, len(plan.tasks), len(plan.tasks) - len(todo)) as listener:
            summary = execute(plan, store, executor, listener)
    except Interrupted as stop:
        _remember(plan, store)
        left = len(todo) - sum(stop.summary.ended.values())
        click.echo(
            f"interrupted; {left} of {len(plan.tasks)} trials are left: the same command runs them", err=True
        )
        raise click.exceptions.Exit(130) from None
    for task, reason in summary.failures:
        click.echo(f"failed: {task.title}: {reason}", err=True)
        click.echo(f"        {store.record_path(task.key)}", err=True)
    return bool(summary.failures)


def _default_workers(device: str) -> int:
    """One process for a GPU, which it fills; on a CPU one for each core, each with one thread."""
    from bench.devices import choose_device

    if choose_device(device) != "cpu":
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _remember(plan: Plan, store: Store) -> None:
    """Keep what the study consists of, for ``bench table``; also the trials that are still missing."""
    from bench.trial import describe

    content = {
        "name": plan.study.name,
        "hash": plan.hash,
        "keys": [task.key for task in plan.tasks],
        "methods": list(dict.fromkeys(task.method for task in plan.tasks)),
        "missing": [
            {"format": FORMAT, "key": task.key, "status": "missing", "reason": None, "trial": describe(task)}
            for task in plan.tasks
            if store.record(task.key) is None
        ],
    }
    store.write_study(plan.study.name, content)


def _print_trials(plan: Plan, store: Store) -> None:
    for task in plan.tasks:
        record = store.record(task.key)
        click.echo(f"{task.key[:12]}  {record['status'] if record else 'to run':8}{task.dataset} · {task.title}")


# ---------------------------------------------------------------- bench table


@main.command()
@click.option("--study", "study_name", help="A study that was run here.  [default: the latest]")
@click.option("--metrics", help=f"One table each: {','.join(METRICS)}.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["terminal", "markdown", "csv", "latex"]),
    default="terminal",
    show_default=True,
)
@click.option("--percent", is_flag=True, help="Percent with one decimal instead of fractions.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write to a file.")
@_store_option
def table(
    study_name: str | None,
    metrics: str | None,
    format_: Format,
    percent: bool,
    output: Path | None,
    store: Path,
) -> None:
    """Print the tables of a study that was run: rows per category, mean and deviation over seeds."""
    from bench.store import Store

    results = Store(store)
    names = results.study_names()
    if not names:
        raise BenchError(f"no study was run in {store} yet; start with: bench run")
    if study_name is not None and study_name not in names:
        from bench.errors import unknown

        raise unknown("study", study_name, names)
    _print_tables(results, study_name or names[0], _metrics(metrics), format_, percent, output)


def _tables(store: Store, study: str, metrics: tuple[str, ...], percent: bool) -> list[Table]:
    from bench.report.table import build_tables

    content = store.study(study) or {}
    found = {key: store.record(key) for key in content.get("keys", [])}
    missing = [record for record in content.get("missing", []) if found.get(record["key"]) is None]
    records = [record for record in found.values() if record is not None]
    if not records:
        raise BenchError(f"study {study} has no finished trial yet; run it first")
    return build_tables([*records, *missing], metrics=metrics, methods=content.get("methods"), percent=percent)


def _print_tables(
    store: Store,
    study: str,
    metrics: tuple[str, ...],
    format_: Format = "terminal",
    percent: bool = False,
    output: Path | None = None,
) -> None:
    from bench.report.formats import print_table, render_all

    tables = _tables(store, study, metrics, percent)
    if output is not None:
        output.write_text(render_all(tables, format_), encoding="utf-8")
        click.echo(f"written: {output}", err=True)
    elif format_ == "terminal":
        for each in tables:
            print_table(each)
            click.echo()
    else:
        click.echo(render_all(tables, format_), nl=False)


# ---------------------------------------------------------------- bench list


@main.command("list")
@click.argument(
    "what",
    type=click.Choice(["methods", "datasets", "encoders", "executors", "studies"]),
    required=False,
)
def list_(what: str | None) -> None:
    """List what can be named: methods, datasets, encoders, executors, studies."""
    from bench import listing

    for section in [what] if what else ["methods", "datasets", "encoders", "executors", "studies"]:
        click.echo("\n".join(listing.section(section)))


# ---------------------------------------------------------------- bench split, data, prompts


@main.command()
@_data_options
@click.option("--category", required=True, help="The target category.")
@click.option("--shots", type=int, default=1, show_default=True, help="Labelled anomalies per seen category.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="The whole manifest, every image id.")
def split(
    datasets: str | None,
    roots: tuple[str, ...],
    protocol: str | None,
    train_dataset: str | None,
    train_root: Path | None,
    category: str,
    shots: int,
    seed: int,
    as_json: bool,
) -> None:
    """Print the split of one trial: what it learns from and what it is tested on."""
    from bench.config import build_config, parse_spec
    from bench.plan import open_catalogue
    from bench.protocols import ProtocolConfig, check_leakage
    from bench.protocols import split as make_split

    spec = parse_spec(datasets or "pocket")
    target = open_catalogue(spec, _roots(roots, (spec,)).get(spec.name))
    source = open_catalogue(parse_spec(train_dataset), train_root) if train_dataset else target
    rules = parse_spec(protocol or ("transfer" if train_dataset else "loo"))
    config = build_config(ProtocolConfig, rules, "protocol")
    manifest = make_split(
        rules.name, config, target=target, source=source, category=category, shots=shots, seed=seed
    )
    check_leakage(manifest, target=target, source=source)
    if as_json:
        import json

        click.echo(json.dumps({"hash": manifest.hash, **manifest.as_dict()}, indent=1, ensure_ascii=False))
        return
    test = target.labels(manifest.test)
    click.echo(f"{manifest.protocol} · {target.label} · {category} · {shots}-shot · seed {seed}")
    click.echo(f"manifest  {manifest.hash}")
    click.echo(f"train     {len(manifest.normal)} normal, {len(manifest.train) - len(manifest.normal)} anomalous")
    for name, draw in manifest.anomalous.items():
        click.echo(f"  {name}: {', '.join(draw.ids) or 'none'}")
    if manifest.support:
        click.echo(f"support   {', '.join(manifest.support)}")
    click.echo(f"test      {int((test == 0).sum())} normal, {int((test == 1).sum())} anomalous")
    for note in manifest.notes:
        click.echo(f"note      {note}")


@main.group()
def data() -> None:
    """Look at a dataset's files."""


@data.command("check")
@click.argument("dataset")
@click.option("--data-root", type=click.Path(path_type=Path), help="Its folder.")
def data_check(dataset: str, data_root: Path | None) -> None:
    """Name every broken, missing, misplaced or mismatched file of DATASET; exit 1 if there is one."""
    from collections import Counter

    from bench.config import parse_spec
    from bench.plan import check_data, open_catalogue

    catalogue = open_catalogue(parse_spec(dataset), data_root)
    findings = check_data(catalogue)
    for finding in findings:
        click.echo(f"{finding.level}: {finding.path}: {finding.message}")
    click.echo(f"{catalogue.dataset.traits.title} ({catalogue.label})")
    for category in catalogue.categories:
        counts = Counter((s.split, s.anomalous) for s in catalogue.samples.values() if s.category == category)
        types = {s.type for s in catalogue.samples.values() if s.category == category and s.anomalous}
        click.echo(
            f"  {category}: {counts['train', False]} train, {counts['test', False]} test normal, "
            f"{counts['test', True]} test anomalous of {len(types)} types"
        )
    errors = sum(finding.level == "error" for finding in findings)
    if errors:
        click.echo(f"{errors} errors", err=True)
        raise click.exceptions.Exit(1)
    click.echo(f"no error; fingerprint {catalogue.fingerprint}")


@main.command()
@click.argument("dataset", default="mvtec")
def prompts(dataset: str) -> None:
    """Print the prompts of DATASET as a file to edit and give back with --prompts."""
    import yaml

    from bench.registry import DATASETS

    cls = DATASETS.load(dataset)
    dataset_ = cls(Path() if cls.traits.needs_root else None, cls.Config())  # prompts need no files
    content = {
        category: {
            "label": prompt.label,
            "normality": prompt.normality,
            "abnormality": prompt.abnormality,
            "descriptions": dict(prompt.descriptions),
        }
        for category, prompt in sorted(dataset_.prompts().items())
    }
    if not content:
        raise BenchError(f"{dataset} ships no prompts; write a file of the form that `bench prompts mvtec` prints")
    click.echo(yaml.safe_dump({dataset: content}, sort_keys=False, allow_unicode=True, width=100), nl=False)
