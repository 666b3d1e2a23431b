"""A throw-away third-party distribution with plugins, good and bad ones, as a wheel."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

from bench.tools.registry import DATASETS, ENCODERS, EXECUTORS, METHODS, PROTOCOLS

MODULE = '''
import dataclasses, json, os, sys, time, warnings
from pathlib import Path
import numpy as np
from bench.contracts import Checkpoint, LearnedImages, ProtocolTraits, Scores, State, Traits
from bench.errors import NotApplicable


class Brightness:
    """Untrained: how bright an image is."""

    name, version = "toy-brightness", "1"

    @dataclasses.dataclass(frozen=True)
    class Config:
        sign: int = 1

    def __init__(self, config):
        self.config = config

    @classmethod
    def traits(cls, config):
        return Traits("Brightness", "this test", trained=False, seeded=False)

    def fit(self, train, context):
        raise AssertionError("not trained")

    def score(self, images, context):
        maps = np.stack([i.mean(-1)[::8, ::8] for i in images]).astype(np.float32) * self.config.sign
        return Scores(maps.max((1, 2)), maps)


class Learner(Brightness):
    """Trained: distance to the mean brightness of the normals, with a random grain per seed."""

    name = "toy-learner"

    @dataclasses.dataclass(frozen=True)
    class Config:
        pause: float = 0.0
        steps: int = 3

    @classmethod
    def traits(cls, config):
        return Traits("Learner", "this test", maps=False)

    def fit(self, train, context):
        for _ in context.track(range(self.config.steps), "train"):
            time.sleep(self.config.pause / self.config.steps)
        normal = np.flatnonzero(train.labels == 0)
        self.centre = np.mean([train.images[i].mean() for i in normal]) + np.random.rand() / 100

    def score(self, images, context):
        return Scores(np.array([abs(i.mean() - self.centre) for i in images], np.float32))

    def features(self, images, context):
        return np.array([[*i.mean((0, 1)) - self.centre, i.std()] for i in images], np.float32)


class Keeper(Learner):
    """A learner whose state can be kept; it counts its trainings in the file that the environment names."""

    name = "toy-keeper"

    @dataclasses.dataclass(frozen=True)
    class Config(Learner.Config):
        how: str = ""

    @classmethod
    def traits(cls, config):
        return Traits("Keeper", "this test", maps=False)

    def fit(self, train, context):
        assert context.category == "" and context.support is None
        with open(os.environ["ZSAD_TRAININGS"], "a") as file:
            file.write(f"{context.seed}\\n")
        if self.config.how == "raise":
            raise RuntimeError("boom in training")
        if self.config.how == "lack":
            raise NotApplicable("nothing to keep here")
        super().fit(train, context)
        context.notes.append("kept well")

    def state(self):
        import torch
        return State({"centre": torch.tensor(self.centre)}, {"steps": self.config.steps})

    def restore(self, state, context):
        self.centre = float(state.tensors["centre"])


class Checked(Brightness):
    """Untrained: scores by a checkpoint of its authors."""

    name = "toy-checked"
    checkpoints = {"ours": Checkpoint(hub="toy/toy:weights.safetensors", trained_on=("Folder",))}

    @dataclasses.dataclass(frozen=True)
    class Config:
        checkpoint: str = "ours"
        second: str = ""

    @classmethod
    def traits(cls, config):
        roles = {"checkpoint": "checkpoint", "second": "checkpoint"}
        return Traits("Checked", "this test", trained=False, seeded=False, maps=False, weights=roles)

    def score(self, images, context):
        factor = float(context.checkpoint("checkpoint")["factor"])
        if self.config.second:
            factor *= float(context.checkpoint("second")["factor"])
        return Scores(np.array([i.mean() * factor for i in images], np.float32))


class Faulty(Brightness):
    """Fails in the way its option says."""

    name = "toy-faulty"

    @dataclasses.dataclass(frozen=True)
    class Config:
        how: str = "raise"
        sign: int = 1

    def score(self, images, context):
        n = len(images)
        how = self.config.how
        if how == "raise":
            raise RuntimeError("boom at layer 3")
        if how == "memory":
            raise MemoryError("cannot allocate 99 GiB")
        if how == "exit":
            sys.exit(7)
        if how == "keyboard":
            raise KeyboardInterrupt("not the user")
        if how == "die":
            os._exit(9)
        if how == "nan":
            return Scores(np.full(n, np.nan, np.float32))
        if how == "shape":
            return Scores(np.zeros(n + 1, np.float32))
        sound = super().score(images, context)
        image, maps = sound.image.copy(), sound.maps.copy()
        if how == "constant":
            image, maps = np.zeros(n, np.float32), np.zeros((n, 4, 4), np.float32)
        elif how == "constant-scores":
            image[:] = 0.25
        elif how == "constant-maps":
            maps[:] = 0.25
        elif how == "flat-maps":
            maps[:] = image[:, None, None]
        elif how == "nan-map":
            maps[2, 1, 1] = np.nan
        elif how == "infinite-scores":
            image[1:3] = np.inf
        elif how == "saturated-scores":
            image = np.minimum(image, np.quantile(image, 0.1))
        elif how == "saturated-maps":
            maps = np.minimum(maps, np.quantile(maps, 0.1))
        elif how == "note":
            context.notes.append(np.float32(0.5))
        elif how != "none":
            raise ValueError(how)
        return Scores(image, maps)


class Loud(Brightness):
    """Prints, from Python and from below it, and warns."""

    name = "toy-loud"

    def score(self, images, context):
        print("from Python")
        os.system("echo from below")
        warnings.warn("a warning")
        return super().score(images, context)


class Normals(Learner):
    """Trained on normal images alone; writes down what it was given."""

    name = "toy-normals"

    @classmethod
    def traits(cls, config):
        return Traits("Normals", "this test", anomalies=False, maps=False)

    def fit(self, train, context):
        context.notes.append(f"{len(train)} images, {int(train.labels.sum())} anomalous, {train.shots} shots")
        super().fit(train, context)


class Joint(Learner):
    """Trained, several trials at once where the engine wants it; fails then in the way its option says."""

    name = "toy-joint"

    @dataclasses.dataclass(frozen=True)
    class Config:
        how: str = ""

    def fit(self, train, context):
        self.fit_together([self], [train], [context])

    @classmethod
    def fit_together(cls, methods, trains, contexts):
        how = methods[0].config.how
        if how == "raise" and len(methods) > 1:
            time.sleep(0.1)
            raise RuntimeError("boom together")
        if how == "memory" and len(methods) > 2:
            raise MemoryError("cannot allocate 99 GiB")
        for method, train, context in zip(methods, trains, contexts):
            print(f"fits seed {context.seed}")
            if how == "seed 1" and context.seed == 1:
                raise RuntimeError("boom for seed 1")
            grain = np.random.default_rng(context.seed).random() / 100
            normal = np.flatnonzero(train.labels == 0)
            method.centre = np.mean([train.images[i].mean() for i in normal]) + grain


class Reader(Learner):
    """Writes down the prompts of its training and test images."""

    name = "toy-reader"

    @dataclasses.dataclass(frozen=True)
    class Config:
        encoder: str = "pocket/clip"
        pause: float = 0.0
        steps: int = 1

    @classmethod
    def traits(cls, config):
        return Traits("Reader", "this test", text=True, maps=False)

    def fit(self, train, context):
        context.notes.append(json.dumps({name: p.normality for name, p in train.images.prompts.items()}))
        super().fit(train, context)

    def score(self, images, context):
        context.notes.append(json.dumps({name: p.normality for name, p in images.prompts.items()}))
        return super().score(images, context)


class FromFile(Brightness):
    """Adds the number in a file to its scores."""

    name = "toy-file"

    @dataclasses.dataclass(frozen=True)
    class Config:
        checkpoint: Path | None = None
        sign: int = 1

    def score(self, images, context):
        offset = float(self.config.checkpoint.read_text()) if self.config.checkpoint else 0.0
        sound = super().score(images, context)
        return Scores(sound.image + offset * np.arange(len(images)), sound.maps)


class Neighbour:
    """A protocol: learn from the category that comes next."""

    name = "toy-next"
    traits = ProtocolTraits("learn from the next category", "this test", "the next category", "the test part")

    @dataclasses.dataclass(frozen=True)
    class Config:
        step: int = 1

    def __init__(self, config):
        self.config = config

    def learned(self, request):
        names = request.target.categories
        seen = names[(names.index(request.category) + self.config.step) % len(names)]
        normal = tuple(s.id for s in request.source.select(seen, "train", anomalous=False))
        return LearnedImages(normal, {})

    def support(self, request):
        return ()

    def tested(self, request, support):
        return tuple(s.id for s in request.target.select(request.category, "test"))


class Source:
    """Stands for many methods."""

    description = "toys of all colours"

    def models(self):
        return ["blue", "red"]

    def method(self, model):
        return type("Colour", (Brightness,), {"name": f"toy-source/{model}"})


class Curious(Brightness):
    """Writes down everything that it can reach of a test image set."""

    name = "toy-curious"

    def score(self, images, context):
        seen = {name: repr(getattr(images, name)) for name in dir(images) if not name.startswith("_")}
        seen |= {"context": repr(vars(context))}
        context.notes.append(repr(seen))
        return super().score(images, context)
'''

ENTRY_POINTS = """[bench.methods]
toy-brightness = zsad_toy:Brightness
toy-learner = zsad_toy:Learner
toy-keeper = zsad_toy:Keeper
toy-checked = zsad_toy:Checked
toy-faulty = zsad_toy:Faulty
toy-curious = zsad_toy:Curious
toy-loud = zsad_toy:Loud
toy-normals = zsad_toy:Normals
toy-joint = zsad_toy:Joint
toy-reader = zsad_toy:Reader
toy-source = zsad_toy:Source
toy-file = zsad_toy:FromFile
toy-broken = zsad_toy_missing:Nothing

[bench.protocols]
toy-next = zsad_toy:Neighbour
"""


def build_wheel(
    folder: Path, name: str = "zsad_toy", module: str = MODULE, entry_points: str = ENTRY_POINTS
) -> Path:
    """Write a distribution of one module as a wheel into ``folder``."""
    info = f"{name}-1.0.dist-info"
    files = {
        f"{name}.py": module,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": entry_points,
    }
    lines = []
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        lines.append(f"{path},sha256={digest},{len(text.encode())}")
    files[f"{info}/RECORD"] = "\n".join([*lines, f"{info}/RECORD,,"]) + "\n"
    wheel = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return wheel


def install(wheel: Path, target: Path) -> None:
    """Let pip install a wheel into a folder of its own, without network."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*command, "--disable-pip-version-check", "--target", target, wheel], check=True)


def forget_plugins() -> None:
    """Let the registries look at the installed distributions again."""
    for registry in (METHODS, DATASETS, PROTOCOLS, ENCODERS, EXECUTORS):
        vars(registry).pop("_entries", None)
