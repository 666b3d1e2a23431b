"""anomalib's models through the harness: the same numbers as from anomalib's own engine, and clear refusals."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from bench.contracts import Context, ImageSet, Scores
from bench.encoders import identify, load_network
from bench.errors import BenchError, NotApplicable
from bench.methods.anomalib import run as run
from bench.store.store import Store
from bench.study.plan import prepare
from bench.study.study import Study
from bench.tools.devices import limit_threads, seed_everything
from bench.tools.registry import METHODS
from bench.tools.spec import build_config, parse_spec
from bench.trial.trial import run_trial

POCKET = "backbone=pocket/resnet[image_size=64]"
RESNET = "backbone=timm/resnet18[weights=random]"
VIT = "backbone=timm/vit_tiny_patch16_224[weights=random]"
DINO = "backbone=timm/vit_small_patch14_dinov2[weights=random],image_size=56"
QUICK = {  # -> their maps' side; 0 for none
    f"dfkde[{POCKET},n_pca_components=2]": 0,
    f"dfm[{POCKET}]": 64,
    f"fastflow[{POCKET},epochs=2,flow_steps=2]": 64,
    f"fre[{POCKET},input_dim=1536,epochs=2]": 64,
    f"mh_patchcore[{POCKET}]": 64,
    f"padim[{POCKET}]": 64,
    f"patchcore[{POCKET}]": 64,
    f"patchcore[{RESNET},layers=layer1+layer2,image_size=48]": 48,
    f"patchcore[{VIT},layers=blocks.2,image_size=48]": 48,
    f"stfpm[{POCKET},epochs=2]": 64,
}
SLOW = {
    f"anomaly_dino[{DINO}]": 56,
    f"cflow[{POCKET},fiber_batch_size=8,epochs=1,coupling_blocks=2]": 64,
    f"dinomaly[{DINO},epochs=1]": 56,
    "foundad[backbone=timm/vit_base_patch14_dinov2.lvd142m[weights=random],epochs=1,image_size=28]": 28,
    "ganomaly[image_size=32,epochs=1,n_features=16]": 0,
    f"general_ad[{VIT},layers=11,epochs=1,image_size=32]": 32,
    f"glass[{POCKET},epochs=1]": 64,
    f"inp_former[{DINO},epochs=1]": 56,
    "l2bt[backbone=timm/vit_base_patch14_reg4_dinov2[weights=random],epochs=1,image_size=28]": 28,
    "patchflow[backbone=timm/tf_efficientnet_b0[weights=random],epochs=1,image_size=64]": 64,
    f"rad[{VIT},image_size=32]": 32,
    f"reverse_distillation[{RESNET},epochs=1,image_size=64]": 64,
    "super_add[backbone=timm/vit_small_patch16_dinov3[weights=random],image_size=128,patch_size=128]": 128,
    f"supersimplenet[{RESNET},epochs=1,image_size=256]": 256,
    f"uflow[{RESNET},epochs=1,flow_steps=2,image_size=64]": 64,
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    limit_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def images_of(count: int, seed: int = 0) -> ImageSet:
    return tiny.image_set(tiny.noise(count, 60, seed))


def method(spec: str) -> Any:
    parsed = parse_spec(f"anomalib/{spec}")
    cls = METHODS.load(parsed.name)
    return cls(build_config(cls.Config, parsed))


def context(support: ImageSet | None, **options: Any) -> Context:
    return tiny.context(support=support, network_of=lambda name: load_network(identify(name)), **options)


def score(spec: str, support: ImageSet | None = None, test: ImageSet | None = None, **options: Any) -> Scores:
    seed_everything(3)
    given = context(images_of(4) if support is None else support, **options)
    scores: Scores = method(spec).score(test or images_of(2, seed=1), given)
    return scores


# ---------------------------------------------------------------- the same as anomalib


@pytest.mark.parametrize("spec", [f"patchcore[{POCKET},coreset_sampling_ratio=1]", f"padim[{POCKET}]"])
def test_equals_anomalibs_own_engine(spec: str, tmp_path: Path) -> None:
    """From files through its folder datamodule and its engine, with its own pre-processing."""
    from anomalib.data import Folder
    from anomalib.engine import Engine

    support, test = images_of(5), images_of(3, seed=1)
    for folder, images in (("good", support), ("bad", test), ("good_test", test)):
        (tmp_path / folder).mkdir()
        for number, image in enumerate(images):
            Image.fromarray(image).save(tmp_path / folder / f"{number}.png")
    folders = {"normal_dir": "good", "abnormal_dir": "bad", "normal_test_dir": "good_test"}
    sizes = {"train_batch_size": 32, "eval_batch_size": 1, "num_workers": 0}
    data = Folder(name="own", root=tmp_path, val_split_mode="same_as_test", **folders, **sizes)
    theirs = method(spec)
    given = {k: v for k, v in dataclasses.asdict(theirs.config).items() if k in ("coreset_sampling_ratio",)}
    network = load_network(identify(POCKET.partition("=")[2]))
    seed_everything(3)
    with run.quiet(), run.building("own", network):
        own = theirs.module.configure_pre_processor((64, 64))
        module = theirs.module(
            backbone="resnet18",
            pre_processor=own,
            post_processor=False,
            evaluator=False,
            visualizer=False,
            **given,
        )
        engine = Engine(default_root_dir=tmp_path, logger=False, accelerator="cpu", enable_progress_bar=False)
        engine.fit(module, datamodule=data)
        batches = engine.predict(module, dataloaders=data.test_dataloader())
    assert batches is not None
    found = {Path(batch.image_path[0]).stem: batch for batch in batches if "bad" in batch.image_path[0]}
    ours = score(spec, support, test)
    assert ours.maps is not None
    for number in range(3):
        batch: Any = found[str(number)]
        image = abs(float(batch.pred_score) - ours.image[number])
        maps = np.abs(batch.anomaly_map.reshape(64, 64).numpy() - ours.maps[number]).max()
        print(f"{spec}: image scores differ by {image:.1e}, maps by {maps:.1e} of {np.ptp(ours.maps):.1f}")
        assert max(image, maps) < 1e-4 * np.ptp(ours.maps)


# ---------------------------------------------------------------- every model


def test_all_are_tried() -> None:
    tried = {spec.partition("[")[0] for spec in (*QUICK, *SLOW)}
    assert tried | {"winclip"} == set(METHODS.plugin("anomalib").models())


@pytest.mark.parametrize("spec", QUICK)
def test_quick_models(spec: str) -> None:
    _check(spec, QUICK[spec])


@pytest.mark.slow
@pytest.mark.parametrize("spec", SLOW)
def test_slow_models(spec: str) -> None:
    _check(spec, SLOW[spec])


def _check(spec: str, side: int) -> None:
    chosen = method(spec)
    traits = chosen.traits(chosen.config)
    assert not traits.zero_shot
    assert traits.support
    assert not traits.trained
    scores = score(spec)
    assert np.isfinite(scores.image).all()
    assert (scores.maps is None) == (side == 0) == (not traits.maps)
    if scores.maps is not None:
        assert scores.maps.shape == (2, side, side)
        assert np.isfinite(scores.maps).all()
        assert np.ptp(scores.maps[0]) > 0


def test_the_weights_are_ours() -> None:
    import timm

    network = load_network(identify(POCKET.partition("=")[2]))
    weights = network.create(pretrained=True).state_dict()["layer2.0.conv1.weight"]
    for spec in (f"patchcore[{POCKET}]", f"stfpm[{POCKET}]"):
        with run.building(spec, network):
            module = run.build(method(spec), network)
        found = [value for name, value in module.state_dict().items() if name.endswith("layer2.0.conv1.weight")]
        assert torch.equal(found[0], weights)
        assert [torch.equal(value, weights) for value in found[1:]] == [False] * ("stfpm" in spec)  # the student
    assert timm.create_model is timm.models.create_model  # put back


# ---------------------------------------------------------------- in the harness


@pytest.mark.parametrize("protocol", ["loo[k=4]", "oneclass"])
def test_on_pocket(protocol: str, tmp_path: Path) -> None:
    specs = tuple(parse_spec(f"anomalib/{model}") for model in ("patchcore", "padim"))
    study = Study(
        "s", specs, (parse_spec("pocket"),), (parse_spec(protocol),), shots=(1, 10), categories=("wood",)
    )
    plan = prepare(study, Store(tmp_path))
    assert [(task.shots, task.seed) for task in plan.tasks] == [(None, 0)] * 2
    for task in plan.tasks:
        manifest = plan.manifests[task.identity["protocol"]["manifest"]]
        assert manifest.train == ()
        assert len(manifest.support) == (4 if protocol == "loo[k=4]" else 12)
        outcome = run_trial(task)
        assert outcome.record["status"] == "ok", outcome.record["reason"]
        facts = outcome.record["trial"]["method"]
        assert not facts["zero_shot"]
        assert facts["version"].endswith(f"anomalib {outcome.record['provenance']['versions']['anomalib']}")
        assert outcome.record["trial"]["encoders"]["backbone"]["name"] == "pocket/resnet"
        assert outcome.record["metrics"]["exact"]["values"]["pixel_auroc"] > 0.6  # chance: 0.5


def test_without_normals_it_is_skipped(tmp_path: Path) -> None:
    study = Study("s", (parse_spec("anomalib/padim"),), (parse_spec("pocket"),), categories=("wood",))
    record = run_trial(prepare(study, Store(tmp_path)).tasks[0]).record
    assert record["status"] == "skipped"
    assert record["reason"] == "PaDiM needs K normal images of the target; use --protocol loo[k=4], or oneclass"


def test_nothing_is_printed_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    score(f"patchcore[{POCKET}]")
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())


def test_steps_are_told() -> None:
    told: list[tuple[int, str]] = []

    def track(steps: Any, what: str) -> Any:
        told.append((len(steps), what))
        for step in steps:
            told.append((step, "step"))
            yield step

    score(f"stfpm[{POCKET},epochs=3,batch_size=3]", track=track)  # two steps in an epoch
    assert told == [(6, "train"), *((step, "step") for step in range(6))]


def test_ctrl_c_passes_through() -> None:
    """Lightning makes it an exit with code 1, which would be recorded as a failure, and turns the next one off."""

    def stop(steps: Any, _: str) -> Any:
        yield from steps[:1]
        raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        score(f"stfpm[{POCKET},epochs=3]", track=stop)
    assert signal.getsignal(signal.SIGINT) is handler


# ---------------------------------------------------------------- options and refusals


def test_options_are_the_models_own_and_ours() -> None:
    config = method("patchcore[coreset_sampling_ratio=0.5,layers=layer1+layer2,num_neighbors=3]").config
    assert dataclasses.asdict(config) == {
        "backbone": "timm/wide_resnet50_2",
        "image_size": 0,
        "batch_size": 32,
        "layers": ("layer1", "layer2"),
        "coreset_sampling_ratio": 0.5,
        "num_neighbors": 3,
    }
    assert method("stfpm").config.epochs == 100
    assert method("padim[n_features=7]").config.n_features == 7
    assert method("padim").config.n_features is None
    assert method("uflow").config.backbone == "timm/wide_resnet50_2"
    assert not hasattr(method("ganomaly").config, "backbone")
    one, other = (score(f"patchcore[{POCKET},num_neighbors={k}]").image for k in (1, 3))
    assert not np.array_equal(one, other)


def test_images_are_scaled_to_the_models_size_or_the_backbones_if_that_is_smaller() -> None:
    module = method("mh_patchcore").module
    assert run.input_size(module) == 224  # 256, cropped
    assert run.input_size(method("padim").module) == 256
    network = load_network(identify("timm/resnet18[weights=random,mean=0.5+0.5+0.5]"))
    steps = run.pre_processor(module, 224, network).transform.transforms
    assert [type(step).__name__ for step in steps] == ["Resize", "Normalize"]  # a crop would cut the map too
    assert steps[0].size == [224, 224]
    assert list(steps[1].mean) == [0.5, 0.5, 0.5]
    assert score(f"padim[{POCKET},image_size=32]").maps.shape == (2, 32, 32)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("patchcor", "unknown model 'patchcor' of anomalib. Did you mean 'patchcore'"),
        ("draem", "anomalib/draem cannot be run here: it needs the texture images of DTD"),
        ("patchcore[coreset=1]", "unknown option 'coreset' of method anomalib/patchcore"),
        ("patchcore[num_neighbors=two]", "not an int"),
        ("stfpm[epochs=0]", "epochs must be at least 1"),
        (f"patchcore[{POCKET},layers=layer2+layer9]", "has no layer 'layer9'; choose layers= among"),
        (f"padim[{POCKET},n_features=9999]", "anomalib/padim cannot be built on pocket/resnet"),
        (f"dinomaly[{POCKET}]", "anomalib/dinomaly cannot be built on pocket/resnet"),
        (f"l2bt[{POCKET}]", "choose backbone=timm/vit_base_patch14_reg4_dinov2"),
        ("patchcore[backbone=torchvision/resnet18[weights=random]]", "cannot be built through timm"),
    ],
)
def test_refusals(spec: str, message: str) -> None:
    with pytest.raises(BenchError) as refused:
        score(spec)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_too_few_normal_images() -> None:
    with pytest.raises(NotApplicable, match=r"needs 16 normal images .* and has 4"):
        score(f"dfkde[{POCKET}]")
    with pytest.raises(NotApplicable, match="needs normal images of the target"):
        method(f"padim[{POCKET}]").score(images_of(1), context(None))
