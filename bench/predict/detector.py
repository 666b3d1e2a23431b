"""Detectors: a method that is ready to score anybody's pictures, fitted here or read from a file."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.contracts import Context, HasState, ImageSet, Method, Prompts, Scores, State, Traits, Weights
from bench.data.prompts import default_prompts, read_prompt_file
from bench.errors import BenchError, NotApplicable, unknown
from bench.predict.pictures import Picture, Pictures
from bench.predict.predictions import Predictions, threshold_at
from bench.store.detectors import dump_detector, load_detector
from bench.store.store import DEFAULT_ROOT, Store
from bench.study.build import Files, check_shots, read_train_roots, read_weights
from bench.study.lookup import ChosenMethod, choose_method, find_weights
from bench.study.plan import prepare_fit
from bench.study.sources import ANY, parse_sources
from bench.study.study import DEFAULT_TO_FIT, Study
from bench.study.task import Fit, Task
from bench.tools.devices import Precision, choose_device
from bench.tools.files import write_atomically
from bench.tools.registry import METHODS
from bench.tools.spec import check_files, config_dict, config_from_dict, parse_spec, planned_files
from bench.tools.text import count
from bench.trial.fit import Track, run_fits
from bench.trial.isolation import isolated
from bench.trial.loading import load_backbone, load_checkpoint, load_network, load_text_image
from bench.trial.scores import checked, explain

CHUNK = 256  # pictures that are scored at once; a few-shot method looks at its normal pictures each time


class Detector:
    """A method that is ready to score pictures; made by :func:`fit` and :func:`load`.

    Attributes:
        label: the method with its options, e.g. ``promptad[cmi=off]``.
        traits: of the method.
        weights: role -> the weights that it loads.
        trained_on: ``dataset``, ``protocol``, ``categories`` and ``images`` (content keys) that it has learned
            from; empty for a method that is not trained.
    """

    def __init__(
        self,
        method: Method,
        traits: Traits,
        weights: Mapping[str, Weights],
        description: Mapping[str, Any],
        state: State,
        device: str,
        precision: Precision,
    ) -> None:
        self._method, self.traits, self.weights = method, traits, dict(weights)
        self._description, self._state = dict(description), state
        self._device, self._precision = device, precision
        self.label: str = description["method"]["label"]
        self.trained_on: Mapping[str, Any] = description.get("trained_on") or {}
        self._trained_images = frozenset(self.trained_on.get("images", ()))

    def save(self, path: str | Path) -> None:
        """Write the detector to one file: safetensors and JSON, no pickle.

        Raises:
            BenchError: the file cannot be written.
        """
        try:
            write_atomically(Path(path), dump_detector(self._description, self._state))
        except OSError as error:
            raise BenchError(f"{path} cannot be written: {error.strerror}") from None

    def predict(
        self,
        images: Any,
        category: str = "",
        *,
        prompts: Prompts | str | Path | None = None,
        normals: Any = None,
        threshold: float | None = None,
        calibrate: Any = None,
        false_alarms: float = 0.01,
        unreadable: str = "raise",
        track: Track | None = None,
    ) -> Predictions:
        """Scores and anomaly maps of pictures.

        Args:
            images: files, folders (with all below them), PIL images or ``(H, W, 3)`` or ``(H, W)`` uint8 arrays;
                one, or a sequence. Pixels are taken as stored, whatever an EXIF orientation says.
            category: what is on the pictures, in words: ``metal nut``. Methods that read texts need it.
            prompts: the category's texts, or a prompt file (``bench prompts``) that has them; by default generic
                ones with the category's name.
            normals: normal pictures of the category, for few-shot methods.
            threshold: image scores above it are called anomalous.
            calibrate: further normal pictures, from whose scores the threshold is taken: so that at most the share
                ``false_alarms`` of them lies above it.
            false_alarms: see ``calibrate``.
            unreadable: ``raise`` if a picture cannot be read, or ``skip`` it; the result names those skipped.
            track: shows progress, see :class:`bench.contracts.Context`.

        Raises:
            BenchError: a picture cannot be read, the method lacks the category's words or normal pictures, or it
                failed.
        """
        if unreadable not in ("raise", "skip"):
            raise BenchError(f"unreadable is raise or skip, not {unreadable!r}")
        if threshold is not None and not math.isfinite(threshold):
            raise BenchError(f"a threshold is a finite number, not {threshold}")
        if threshold is not None and calibrate is not None:
            raise BenchError("give a threshold, or normal pictures to take one from (calibrate), not both")
        if self.traits.text and not category and not isinstance(prompts, Prompts):
            raise BenchError(
                f"{self.traits.title} reads texts: say what is on the pictures, such as category 'metal nut'"
            )
        words = self._words(category, prompts)
        support = self._support(normals, words)
        found = self._scored(Pictures.of(images), words, support, unreadable, track)
        if calibrate is not None:
            normal = self._scored(Pictures.of(calibrate), words, support, "raise", track)
            threshold, note = threshold_at(normal.image, false_alarms)
            notes = [note] if note else []
            if normal.met:
                notes.append(
                    f"the threshold is taken from {count(len(normal.met), 'picture')} that the detector was "
                    "trained on: it may be too low"
                )
            found = dataclasses.replace(found, notes=(*found.notes, *notes))
        return dataclasses.replace(found, threshold=threshold)

    def _words(self, category: str, prompts: Prompts | str | Path | None) -> Prompts:
        if isinstance(prompts, Prompts):
            return prompts
        if prompts is None:
            return default_prompts(category or "object")
        known: dict[str, Prompts] = {}
        for section in read_prompt_file(Path(prompts)).values():  # of whichever dataset
            known |= section
        by_label = {**{words.label: words for words in known.values()}, **known}
        if category not in by_label:
            raise unknown("category", category, known, f"in {prompts}")
        return by_label[category]

    def _support(self, normals: Any, words: Prompts) -> ImageSet | None:
        if normals is None:
            if self.traits.support:
                raise BenchError(f"{self.label} needs normal pictures of the category: --normals DIR")
            return None
        return _image_set(Pictures.of(normals).items, words)

    def _scored(
        self, pictures: Pictures, words: Prompts, support: ImageSet | None, unreadable: str, track: Track | None
    ) -> Predictions:
        """Scores of all pictures, some hundred at a time: what stays in memory of each is its map."""
        context = self._context(words.label, support)
        parts: list[Scores] = []
        sound: list[Picture] = []
        wrong: dict[str, str] = {}
        starts: Iterable[int] = range(0, len(pictures.items), CHUNK)
        for start in track(starts, "score") if track is not None else starts:
            chunk = list(pictures.items[start : start + CHUNK])
            try:
                parts.append(self._score(chunk, words, context))
            except BenchError:
                # Each is read once where all is well; only now it is looked for those that cannot be.
                found = _unreadable(chunk) if unreadable == "skip" else {}
                if not found:
                    raise
                wrong |= found
                chunk = [picture for picture in chunk if picture.name not in found]
                if chunk:
                    parts.append(self._score(chunk, words, context))
            sound += chunk
        if not sound:
            raise BenchError("no picture can be read:\n" + "\n".join(f"  {reason}" for reason in wrong.values()))
        maps = None
        if parts[0].maps is not None:
            maps = np.concatenate([part.maps for part in parts if part.maps is not None])
        return Predictions(
            detector=self.label,
            category=words.label,
            pictures=tuple(sound),
            image=np.concatenate([part.image for part in parts]),
            maps=maps,
            unreadable=wrong,
            met=tuple(picture.name for picture in sound if picture.key in self._trained_images),
            notes=tuple(dict.fromkeys(context.notes)),
        )

    def _score(self, pictures: Sequence[Picture], words: Prompts, context: Context) -> Scores:
        from bench.tools.devices import seed_everything

        images = _image_set(pictures, words)
        try:
            with isolated():
                seed_everything(context.seed, self._precision)
                return checked(self._method.score(images, context), images)
        except NotApplicable as error:
            raise BenchError(f"{self.label}: {error}") from None
        except BenchError:
            raise
        except Exception as error:  # of whatever the method is made of
            raise BenchError(f"{self.label} failed: {explain(error)}") from error

    def _context(self, category: str, support: ImageSet | None) -> Context:
        seed = self._description.get("seed") or 0
        return dataclasses.replace(
            context_of(self.weights, self._device, seed),
            category=category,
            support=support,
            n_support=len(support or ()),
        )

    def __repr__(self) -> str:
        learned = self.trained_on
        if not learned:
            return f"<Detector {self.label}: nothing learned>"
        images = count(len(learned["images"]), "image")
        return f"<Detector {self.label}: learned from {images} of {learned['dataset']}>"


def fit(
    method: str,
    *,
    train_dataset: str = "",
    train_root: Files | None = None,
    protocol: str = DEFAULT_TO_FIT,
    shots: int | None = None,
    seed: int = 0,
    encoder: str = "",
    backbone: str = "",
    weights: Files | None = None,
    prompts: str | Path | None = None,
    device: str = "auto",
    precision: Precision = "highest",
    store: str | Path = DEFAULT_ROOT,
    track: Track | None = None,
) -> Detector:
    """A detector, trained on a dataset; or as it comes, of a method that needs no training.

    The same arguments give the same detector as ``bench run --keep-detectors`` trains for its trials.

    Args:
        method: with options: ``promptad[cmi=off]``.
        train_dataset: dataset to learn from, with options; several as one: ``visa+clinicdb``. Not for methods that
            are not trained.
        train_root: its folder; of several, name -> folder.
        protocol: decides which of its images are learned from.
        shots: labelled anomalies per category, under protocols that draw some; 10 by default.
        seed: seeds everything random.
        encoder, backbone: replace the method's own.
        weights: a local file; of several, role or name -> file.
        prompts: prompt file that replaces the dataset's own.
        device, precision: as of :class:`bench.study.study.Study`.
        store: where hashes of the dataset's files are remembered.
        track: shows progress, see :class:`bench.contracts.Context`.

    Raises:
        BenchError: anything the user must mend, or training failed.
    """
    spec = parse_spec(method)
    sources = parse_sources(train_dataset) if train_dataset else None
    source = sources.of(ANY)[0] if sources is not None else None
    study = Study(
        name="",
        methods=(spec,),
        datasets=(source or spec,),  # none is tested on
        protocols=(parse_spec(protocol),),
        source=sources,
        shots=(10,) if shots is None else (shots,),
        seeds=(seed,),
        roots=read_train_roots(train_root, sources),
        encoder=encoder,
        backbone=backbone,
        weights=read_weights(weights),
        prompts=None if prompts is None else Path(prompts),
        device=device,
        precision=precision,
    )
    if shots is not None:
        check_shots(study.protocols)
    chosen = choose_method(spec, source, study)
    if not chosen.traits.trained:
        if source is not None:
            raise BenchError(f"{chosen.label} learns nothing: leave the training data out")
        return _untrained(chosen, study)
    if source is None:
        raise BenchError(f"{chosen.label} is trained: name a dataset to learn from, --train-dataset mvtec")
    if not hasattr(chosen.cls, "restore"):
        raise BenchError(f"{chosen.label} cannot be kept: the method does not give what it has learned")
    if chosen.traits.fits_on_support:
        raise BenchError(
            f"{chosen.label} is fitted on normal images of its one target, and cannot be kept for others"
        )
    task = prepare_fit(study, Store(Path(store)))
    return fitted(task, track)


def fitted(task: Task, track: Track | None = None) -> Detector:
    """The detector of a planned fit, trained in this process.

    Raises:
        BenchError: training failed, or the data lack what the method needs.
    """
    from bench.tools.devices import limit_threads

    with isolated():
        limit_threads()  # as in a study: the same detector, to the last bit
        (outcome,) = run_fits((Fit(task),), track)
    if outcome.detector is None:
        raise BenchError(f"{task.method} could not be fitted: {outcome.reason}\n{outcome.trace}".rstrip())
    description, state = load_detector(outcome.detector, task.method)
    weights = {role: task.weights[key] for role, key in task.weights_by_role.items()}
    return _restored(description, state, weights, task.device, task.precision)


def load(
    path: str | Path,
    *,
    weights: Files | None = None,
    device: str = "auto",
    precision: Precision = "highest",
) -> Detector:
    """The detector in a file of :meth:`Detector.save`, ``bench fit`` or ``bench run --keep-detectors``.

    Args:
        path: the file.
        weights: a local file, where the weights cannot be found by their names; of several, role or name -> file.
        device, precision: as of :class:`bench.study.study.Study`.

    Raises:
        BenchError: it is no detector, is damaged, of a newer version, of a method that is not installed or has
            changed, or the weights that it was fitted on are not there.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise BenchError(f"{path}: {error.strerror}") from None
    description, state = load_detector(data, str(path))
    method = description["method"]
    if method["name"] not in METHODS.names() and "/" not in method["name"]:
        raise BenchError(f"{path} is a detector of the method {method['name']!r}, which is not installed here")
    cls = METHODS.load(method["name"])
    if cls.version != method["version"]:
        raise BenchError(
            f"{path} was fitted by version {method['version']} of {method['name']}, and version {cls.version} is "
            "installed, which scores otherwise; fit it anew"
        )
    config = config_from_dict(cls.Config, method["config"], planned_files(method["config"]))
    found = _find_weights(cls, cls.traits(config), description["weights"], read_weights(weights), str(path))
    return _restored(description, state, found, device, precision)


def _find_weights(
    cls: type[Method],
    traits: Traits,
    recorded: Mapping[str, Mapping[str, str]],
    given: Mapping[str, Path],
    path: str,
) -> dict[str, Weights]:
    """The weights that a detector was fitted on, by role.

    Raises:
        BenchError: they cannot be had, or those found are others.
    """
    from bench.encoders import identify
    from bench.encoders.checkpoints import identify_checkpoint

    used = {role: known["name"] for role, known in recorded.items()}
    for name in given:
        if name and name not in {*used, *used.values()}:
            raise unknown("weights", name, used, f"of {path}")
    only = given.get("")
    if only is not None and len(used) != 1:
        roles = ", ".join(used) or "it loads none"
        raise BenchError(f"--weights {only}: say for which of {path}, --weights ROLE={only} ({roles})")
    found = {}
    for role, name in used.items():
        file = given.get(name) or given.get(role) or only
        if traits.roles.get(role) == "checkpoint":
            found[role] = identify_checkpoint(role, name, getattr(cls, "checkpoints", {}), file)
        else:
            found[role] = identify(name, file)
        if found[role].sha256 != recorded[role]["sha256"]:
            raise BenchError(
                f"{path} was fitted on other weights of {name} (SHA-256 {recorded[role]['sha256'][:12]}...) than "
                f"those here ({found[role].sha256[:12]}...); give the right file with --weights {role}=FILE"
            )
    return found


def _untrained(chosen: ChosenMethod, study: Study) -> Detector:
    """A detector of a method that learns nothing."""
    known = find_weights(study, [chosen])
    weights = {role: known[chosen.weights_key(role)] for role in chosen.encoders}
    options = config_dict(chosen.config)
    description = {
        "method": {
            "name": chosen.cls.name,
            "version": chosen.cls.version,
            "config": options,
            "label": chosen.label,
        },
        "weights": {role: {"name": each.name, "sha256": each.sha256} for role, each in weights.items()},
        "seed": study.seeds[0],
    }
    method = chosen.cls(chosen.config)  # type: ignore[call-arg]  # a protocol says nothing of building
    device = choose_device(study.device)
    return Detector(method, chosen.traits, weights, description, State({}), device, study.precision)


def _restored(
    description: Mapping[str, Any],
    state: State,
    weights: Mapping[str, Weights],
    device: str,
    precision: Precision,
) -> Detector:
    """A detector from what its file says."""
    from bench.tools.devices import seed_everything

    planned = description["method"]
    cls = METHODS.load(planned["name"])
    files = planned_files(planned["config"])
    check_files(files)
    config = config_from_dict(cls.Config, planned["config"], files)
    chosen = choose_device(device)
    context = context_of(weights, chosen, description.get("seed") or 0)
    traits = cls.traits(config)
    with isolated():
        seed_everything(context.seed, precision)
        method = cls(config)
        if traits.trained:
            assert isinstance(method, HasState)
            method.restore(state, context)
    return Detector(method, traits, weights, description, state, chosen, precision)


def context_of(weights: Mapping[str, Weights], device: str, seed: int) -> Context:
    """A context with weights, by role, and without any target."""
    named = {each.name: each for each in weights.values()}
    return Context(
        device=device,
        seed=seed,
        category="",
        encoder=lambda name: load_text_image(named[name], device),
        backbone=lambda name: load_backbone(named[name]),
        network=lambda name: load_network(named[name]),
        checkpoint=lambda role: load_checkpoint(weights[role]),
    )


def _image_set(pictures: Sequence[Picture], words: Prompts) -> ImageSet:
    by_key = {picture.key: picture for picture in pictures}
    keys = [picture.key for picture in pictures]
    return ImageSet(keys, [words.label] * len(keys), {words.label: words}, lambda key: by_key[key].pixels())


def _unreadable(pictures: Sequence[Picture]) -> dict[str, str]:
    """Name of each picture that cannot be read -> the reason."""
    found = {}
    for picture in pictures:
        try:
            _ = picture.key, picture.pixels()
        except BenchError as error:
            found[picture.name] = str(error)
    return found
