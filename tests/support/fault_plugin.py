"""Third parties' methods that do harm, and faults that are injected below Python's own file calls."""

from __future__ import annotations

METHODS = '''
import asyncio, contextlib, ctypes, dataclasses, gc, json, os, sys, threading, time, warnings
import numpy as np
from bench.contracts import Scores, Traits
from zsad_toy import Brightness, Learner


def journal(context, shots):
    """One line for each trial that was carried out to its end, appended at once or not at all."""
    line = f"{context.category}/{shots}/{context.seed}\\n".encode()
    file = os.open(os.environ["ZSAD_JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line)
    os.close(file)


class Journal(Learner):
    """Trained; writes a journal."""

    name = "toy-journal"

    def fit(self, train, context):
        super().fit(train, context)
        self.shots = train.shots

    def score(self, images, context):
        time.sleep(float(os.environ.get("ZSAD_PAUSE", 0)))  # slower, and yet the same trial
        scores = super().score(images, context)
        journal(context, self.shots)
        return scores


class Null(Brightness):
    """Draws scores, looks at nothing; writes a journal."""

    name = "toy-null"

    @classmethod
    def traits(cls, config):
        return Traits("Null", "this test", trained=False, maps=False)

    def score(self, images, context):
        journal(context, None)
        return Scores(np.random.rand(len(images)).astype(np.float32))


class Witness(Brightness):
    """Writes down the state in which it finds its process, and scores by what depends on that state."""

    name = "toy-witness"

    @dataclasses.dataclass(frozen=True)
    class Config:
        after: str = ""
        sign: int = 1

    def score(self, images, context):
        import torch

        print("witness", flush=True)
        with contextlib.suppress(ZeroDivisionError):
            warnings.warn("a warning")
            np.float32(1) / np.float32(0)
        state = [os.getcwd(), sorted(os.environ.items()), str(np.geterr()), str(torch.get_default_dtype()),
                 str(torch.get_default_device()), torch.is_grad_enabled(), torch.get_num_threads(),
                 torch.are_deterministic_algorithms_enabled(), gc.isenabled(), sys.getrecursionlimit(),
                 os.fstat(1) != os.fstat(0), sys.stdout.closed]
        context.notes.append(json.dumps(state))
        grain = np.random.rand(len(images)) + torch.rand(len(images)).numpy()
        return Scores((super().score(images, context).image + grain).astype(np.float32))


class Strange(BaseException):
    pass


class Mute(Exception):
    def __str__(self):
        raise SystemExit("no words")


class Locked(Exception):
    def __init__(self):
        super().__init__("has a lock")
        self.lock = threading.Lock()


class Hostile(Brightness):
    """Does what its option says."""

    name = "toy-hostile"
    buffer = np.zeros(18, np.float32)
    leaked = []

    @dataclasses.dataclass(frozen=True)
    class Config:
        how: str = ""
        sign: int = 1

    @classmethod
    def traits(cls, config):
        return Traits("Hostile", "this test", trained=False, seeded=False)

    def score(self, images, context):
        import torch

        sound, how = super().score(images, context), self.config.how
        image, maps, n = sound.image, sound.maps, len(images)
        raises = {
            "raise": RuntimeError("boom"), "memory": MemoryError("99 GiB"), "base": Strange("strange"),
            "keyboard": KeyboardInterrupt("not the user"), "generator": GeneratorExit(), "mute": Mute(),
            "cancelled": asyncio.CancelledError("task"), "stop": StopIteration(3), "unpicklable": Locked(),
            "huge": ValueError("x" * 10_000_000), "escapes": ValueError("\\x1b[2J\\x00\\udc80\\u202e"),
            "lines": ValueError("first\\nsecond"), "exit": SystemExit(0),
        }
        if how in raises:
            raise raises[how]
        if how == "recursion":
            def deeper():
                return deeper()
            return deeper()
        answers = {
            "nan": Scores(np.full(n, np.nan, np.float32), maps), "nan-map": Scores(image, maps * np.nan),
            "infinite": Scores(image * np.inf, maps), "shape": Scores(image[1:], maps),
            "map-shape": Scores(image, maps[:, 0]), "constant": Scores(image * 0, maps * 0),
            "complex": Scores(image + 1j, maps), "objects": Scores(image.astype(object), maps),
            "text": Scores(image.astype(str), maps), "ragged": Scores([[1], [2, 3]], maps), "none": None,
            "tuple": (image, maps), "extra-nan": Scores(image, maps, {"more": maps * np.nan}),
            "extra-name": Scores(image, maps, {"image": maps}), "extra-number": Scores(image, maps, {7: maps}),
            "float64": Scores(image.astype(float), maps.astype(float)),
            "strided": Scores(image[::-1][::-1], np.asfortranarray(maps)), "integers": Scores(image.astype(int)),
            "tensor": Scores(torch.from_numpy(image), torch.from_numpy(maps)),
        }
        if how in answers:
            return answers[how]
        if how == "device":
            device = "cuda" if torch.cuda.is_available() else "meta"
            return Scores(torch.zeros(n, device=device), maps)
        if how == "read-only":
            image.setflags(write=False)
            maps.setflags(write=False)
        elif how == "notes":
            context.notes.extend([np.float32(1), {1, 2}, Mute(), "\\udc80\\x1b[2J", "x" * 10_000_000, None])
        elif how == "leak":
            self.leaked.append(np.ones(30_000_000, np.uint8))
        elif how == "abort":
            os._exit(9)
        elif how == "segfault":
            ctypes.string_at(0)
        elif how == "hang":
            time.sleep(10_000)
        elif how == "garbage":
            os.write(1, bytes(range(256)) * 4)
            print("\\x1b[2J\\x1b]0;title\\x07" * 10, "x" * 5_000_000)
        elif how == "close":
            sys.stdout.close()
        elif how == "descriptors":
            os.closerange(0, 3)
        elif how == "folder":
            os.chdir("/")
        elif how == "environment":
            os.environ.clear()
        elif how == "dtype":
            torch.set_default_dtype(torch.float64)
        elif how == "default-device":
            torch.set_default_device("meta")
        elif how == "gradients":
            torch.set_grad_enabled(False)
        elif how == "threads":
            torch.set_num_threads(7)
        elif how == "algorithms":
            torch.use_deterministic_algorithms(False)
        elif how == "numpy":
            np.seterr(all="raise")
        elif how == "warnings":
            warnings.simplefilter("error")
        elif how == "generators":
            torch.manual_seed(5)
            np.random.seed(5)
        elif how == "collector":
            gc.disable()
            sys.setrecursionlimit(20_000)
        elif how == "fork":
            os.fork()
        elif how == "thread":
            threading.Thread(target=time.sleep, args=(10_000,)).start()  # its process does not end by itself
        elif how == "kill-threads":
            for thread in threading.enumerate():
                if thread is not threading.main_thread():
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(
                        ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit)
                    )
        elif how == "images":
            with contextlib.suppress(ValueError):
                for pixels in images:
                    pixels[:] = 0
        else:
            raise NotImplementedError(how)
        return Scores(image, maps)
'''

ENTRY_POINTS = """[bench.methods]
toy-journal = zsad_hostile:Journal
toy-null = zsad_hostile:Null
toy-witness = zsad_hostile:Witness
toy-hostile = zsad_hostile:Hostile
"""

# Python imports a module of this name by itself, in every process that finds it on its path.
SITECUSTOMIZE = """
import os

fault, _, value = os.environ.get("ZSAD_FAULT", "").partition("=")

if fault == "slow":  # a disk that takes its time: seconds for each flush and each rename
    import time

    def slowly(call):
        def slow(*args, **options):
            time.sleep(float(value))
            return call(*args, **options)
        return slow

    os.fsync, os.replace = slowly(os.fsync), slowly(os.replace)

if fault == "full":  # a disk that is full after so many files
    import errno

    left, flush = int(value), os.fsync

    def fsync(descriptor):
        global left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(descriptor)

    os.fsync = fsync

if fault == "clock":  # every look at it finds it so many seconds ahead, then behind, and files say the same
    import datetime, itertools, time

    swing = itertools.cycle((float(value), -float(value)))
    true_time, rename = time.time, os.replace

    class Swinging(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls.fromtimestamp(time.time(), tz)

    def replace(source, target, **options):
        rename(source, target, **options)
        os.utime(target, (time.time(), time.time()))

    time.time = lambda: true_time() + next(swing)
    time.time_ns = lambda: int(time.time() * 1e9)
    datetime.datetime, os.replace = Swinging, replace
"""
