"""From a study to its records: what ``bench run`` and :func:`bench.run` do."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from bench.api.progress import say, shown_progress
from bench.errors import BenchError, unknown
from bench.store.store import DEFAULT_ROOT, Store
from bench.study.build import Files, Names, build_study
from bench.tools.text import count

if TYPE_CHECKING:
    from bench.api.results import Results
    from bench.executors import Executor
    from bench.executors.engine import Listener, Summary
    from bench.store.record import Record
    from bench.study.plan import Plan
    from bench.study.study import Study
    from bench.study.task import Task

NOTHING_KEPT = "no detector is kept: the trials were done before; another store trains anew, or bench fit"
TOGETHER_ON_GPU = 20  # ten seeds at two numbers of shots

Say: TypeAlias = Callable[[str], None]


def run(
    study: str | os.PathLike[str] | None = None,
    *,
    name: str | None = None,
    methods: Names | None = None,
    settings: Names | Mapping[str, object] = (),
    dataset: Names | None = None,
    data_root: Files | None = None,
    data_home: str | os.PathLike[str] | None = None,
    protocol: Names | None = None,
    train_dataset: str | Mapping[str, str] | None = None,
    train_root: Files | None = None,
    categories: Names | None = None,
    shots: int | Iterable[int] | None = None,
    seeds: int | Iterable[int] | None = None,
    encoder: str | None = None,
    backbone: str | None = None,
    weights: Files | None = None,
    prompts: str | os.PathLike[str] | None = None,
    device: str | None = None,
    precision: str | None = None,
    workers: int | None = None,
    together: int | None = None,
    executor: str = "local",
    time_limit: float | None = None,
    allow_leak: bool = False,
    keep_detectors: bool = False,
    store: str | os.PathLike[str] | None = None,
    listener: Listener | None = None,
) -> Results:
    """Run a study, as ``bench run`` does; what has been run before is not run again.

        >>> results = bench.run("quick")                                              # doctest: +SKIP
        >>> results = bench.run(methods=["promptad", "clip"], dataset="pocket", seeds=2)  # doctest: +SKIP
        >>> results.table("image_auroc")                                              # doctest: +SKIP

    Trials that fail are recorded and do not end the study: see :attr:`bench.Results.failures`. After an
    interruption (Ctrl-C, or a notebook's stop button) the same call runs the rest.

    Args:
        study: a shipped study (``bench list studies``) or a YAML file. Without it, and without anything that makes
            other trials, it is ``quick``.
        name: of the study, under which ``bench table`` and :class:`bench.Results` find it.
        methods: methods with options: ``["promptad[cmi=off]", "devnet"]``.
        settings: options for all methods that have them: ``{"epochs": 2, "dra.n_ref": 3}``.
        dataset: one or several, with options.
        data_root: the dataset's folder; of several, a mapping from their names.
        data_home: a folder of datasets under their usual names, for those that have no root; by default what the
            environment's ZSAD_DATA names.
        protocol: one or several, with options: ``"loo[k=4]"``.
        train_dataset: the dataset to learn from, under protocols that need one; several as one: ``visa+clinicdb``;
            another one for each target: ``{"mvtec": "visa", "*": "mvtec"}``.
        train_root: its folder; of several, a mapping from their names.
        categories: target categories; all by default.
        shots: labelled anomalies per seen category, one number or several; 1 and 10 by default.
        seeds: how many, or a list of which; one by default.
        encoder: text-image encoder for all methods.
        backbone: trainable image backbone for all methods.
        weights: local weights file; of several, a mapping from the encoders' names.
        prompts: a prompt file.
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``; the best there is by default.
        precision: of float32 products: ``highest``, ``high`` or ``medium``.
        workers: trials side by side; 0 runs them in this process; by default one per core or GPU.
        together: trials of one target to fit as one where a method can; 20 on a GPU, else 1.
        executor: ``local`` or ``ray``, with options.
        time_limit: seconds after which a trial is ended.
        allow_leak: run weights that have learned from the data tested on; tables mark them.
        keep_detectors: keep what is trained in the store.
        store: folder of the records; by default the environment's BENCH_STORE, or ``results/runs``.
        listener: is told of every event of the run; by default there is a bar with the time left on a terminal,
            and a line per finished trial elsewhere, as in a notebook.

    Raises:
        BenchError: what is asked for is unknown or contradictory, or data, weights or prompts are not in order.
        KeyboardInterrupt: on an interruption; what had ended by then is in the store.
    """
    from bench.api.results import Results
    from bench.data.home import data_home as use_data_home
    from bench.executors.engine import Interrupted

    chosen, note = build_study(
        study,
        name=name,
        methods=methods,
        settings=settings,
        dataset=dataset,
        data_root=data_root,
        protocol=protocol,
        train_dataset=train_dataset,
        train_root=train_root,
        categories=categories,
        shots=shots,
        seeds=seeds,
        encoder=encoder,
        backbone=backbone,
        weights=weights,
        prompts=prompts,
        device=device,
        precision=precision,
        allow_leak=allow_leak,
    )
    if note:
        say(f"note: {note}")
    kept = open_store(store)
    runner = build_executor(executor, kept, workers=workers, time_limit=time_limit)
    with use_data_home(data_home):
        plan = plan_study(chosen, kept, runner, say)
    todo = left(plan, kept, say)
    if todo:
        records = list(kept.records())
        choose_workers(runner, todo, records, say)
        shown = shown_progress(plan, todo, kept, records) if listener is None else contextlib.nullcontext(listener)
        try:
            with shown as told:
                carry_out(plan, todo, kept, runner, told, together, keep_detectors)
        except Interrupted as stop:
            raise KeyboardInterrupt(interruption(plan, todo, stop.summary)) from None
    else:
        write_down(plan, kept)
        if keep_detectors:
            say(f"note: {NOTHING_KEPT}")
    return Results(plan.study.name, store=kept.root)


def open_store(root: str | os.PathLike[str] | None = None) -> Store:
    """The store in a folder; by default that of the environment's BENCH_STORE, or ``results/runs``."""
    return Store(Path(root or os.environ.get("BENCH_STORE") or DEFAULT_ROOT))


def build_executor(
    text: str,
    store: Store,
    *,
    workers: int | None = None,
    time_limit: float | None = None,
    ray_address: str | None = None,
) -> Executor:
    """The executor that is asked for; options of its own win over the general ones.

    Raises:
        BenchError: no such executor, or one of its options is wrong.
    """
    from bench.tools.registry import EXECUTORS
    from bench.tools.spec import build_config, parse_spec

    if workers is not None and workers < 0:
        raise BenchError(f"{workers} workers: 0 runs trials in this process, 1 and more beside it")
    spec = parse_spec(text)
    if ray_address is not None:
        spec = dataclasses.replace(spec, name="ray").with_options(address=ray_address)
    if time_limit is not None:
        spec = spec.with_options(time_limit=f"{time_limit:g}")
    cls = EXECUTORS.load(spec.name)
    executor: Executor = cls(build_config(cls.Config, spec, "executor"), workers, store.root / "logs")
    return executor


def plan_study(study: Study, store: Store, executor: Executor, say: Say) -> Plan:
    """Look everything up, name the study if it has no name, and say what is about to happen.

    Raises:
        BenchError: anything that the user must mend first.
    """
    from bench.report.tables.paper import LAYOUTS
    from bench.study.plan import prepare
    from bench.study.study import PAPER_SEEDS

    if study.layout and study.layout not in LAYOUTS:
        raise unknown("layout", study.layout, LAYOUTS)
    if study.device != "auto":
        executor.on_gpu(study.device)  # a device that is not there is said before the data are read
    plan = prepare(study, store)
    if not study.name:
        # Called after its data and the hash of its trials: the same trials, the same name.
        datasets = "+".join(dict.fromkeys(spec.name for spec in study.datasets))
        name = "-".join(filter(None, [study.layout, datasets, plan.hash[:8]]))
        plan = dataclasses.replace(plan, study=dataclasses.replace(study, name=name))
    with contextlib.suppress(BenchError):  # a study that cannot be read is replaced
        before = store.study(plan.study.name)
        if before is not None and before.get("hash") not in (None, plan.hash):
            say(f"note: study {plan.study.name} had other trials; from now on its name stands for these")
    for note in plan.notes:
        say(f"note: {note}")
    labels = ", ".join(dict.fromkeys(task.method for task in plan.tasks))
    say(f"study {plan.study.name}: {labels}")
    if len(study.seeds) < PAPER_SEEDS and any(spec.name != "pocket" for spec in study.datasets):
        seeds = count(len(study.seeds), "seed")
        say(f"note: {seeds}; the paper averages over {PAPER_SEEDS} (--seeds {PAPER_SEEDS})")
    return plan


def left(plan: Plan, store: Store, say: Say) -> tuple[Task, ...]:
    """The trials that are not done: looked up once, since each look reads a record."""
    todo = tuple(task for task in plan.tasks if not store.done(task.key))
    done = len(plan.tasks) - len(todo)
    say(f"{count(len(plan.tasks), 'trial')}, {done} done, {len(todo)} to run")
    return todo


def write_down(plan: Plan, store: Store) -> None:
    """Keep a study's trials under its name, before they run, so that it can be watched from the first of them on.

    What a killed run of it has left is cleared away.

    Raises:
        BenchError: the store cannot be written.
    """
    from bench.executors.engine import drop_spent_detectors
    from bench.trial.recording import describe_study

    store.write_study(plan.study.name, describe_study(plan))
    drop_spent_detectors(plan, store)


def choose_workers(executor: Executor, todo: tuple[Task, ...], records: Iterable[Record], say: Say) -> None:
    """Settle the number of workers on this machine by its memory and what trials like these took, and say so."""
    from bench.executors.local import LocalExecutor

    if isinstance(executor, LocalExecutor) and (chosen := executor.choose_workers(todo, records)):
        say(chosen)


def carry_out(
    plan: Plan,
    todo: tuple[Task, ...],
    store: Store,
    executor: Executor,
    listener: Listener,
    together: int | None = None,
    keep_detectors: bool = False,
) -> Summary:
    """Write a study down, and run those of its trials that are left.

    Args:
        plan: the whole study.
        todo: its trials that are not done.
        together: as for :func:`run`.

    Raises:
        Interrupted: on Ctrl-C; what had ended by then is in the store.
        BenchError: the store cannot be written.
    """
    from bench.executors.engine import execute
    from bench.tools.files import allow_many_open_files

    if together is not None and together < 1:
        raise BenchError(f"{together} trials cannot be fitted together; 1 fits each alone")
    write_down(plan, store)
    allow_many_open_files()  # every trial in flight holds one
    if together is None:  # a GPU needs many trials at once to be filled; a CPU's cache has room for one
        together = TOGETHER_ON_GPU if executor.on_gpu(plan.study.device) else 1
    rest = dataclasses.replace(plan, tasks=todo)
    return execute(rest, store, executor, listener, together, keep_detectors)


def interruption(plan: Plan, todo: tuple[Task, ...], summary: Summary) -> str:
    """A line on what an interrupted run has left."""
    rest = len(todo) - sum(summary.ended.values())
    return f"interrupted; {rest} of {count(len(plan.tasks), 'trial')} left: the same command runs the rest"
