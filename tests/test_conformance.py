"""Every registered method and dataset holds what the contracts say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import trees

from bench.testing import check_dataset, check_method
from bench.tools.registry import DATASETS, METHODS

# Options that make a method quick; every method must stand here, variants may.
QUICK = [
    "anomalib/padim",
    "anomalib/patchcore",
    "anomalib/stfpm[epochs=2]",
    "anomalib/winclip",
    "anomalib/winclip[k_shot=2,scales=2]",
    "clip",
    "clip[variant=probe,iterations=5]",
    "devnet[epochs=1,steps_per_epoch=2]",
    "dra[epochs=1,steps_per_epoch=2,batch_size=6]",
    "dra[epochs=1,steps_per_epoch=1,batch_size=6,ref_source=target,ref_train=seen_same_class]",
    "maskclip",
    "maskclip[mmseg_quirks=on,ks_thresh=1,resid_ffn=off,prompts=imagenet]",
    "mlep[epochs=1,steps_per_epoch=2,batch_size=6]",
    "mlep[epochs=1,steps_per_epoch=1,batch_size=6,variant=recon]",
    "promptad[iters=3,ffn=64]",
    "promptad[cmi=off,iters=3,ffn=64]",
    "regad[epochs=2,batch_size=4]",
    "transmm",
    "transmm[start_layer=0,target=prob,prompts=damaged]",
    "winclip",
    "winclip[few_shot=on,templates=typo]",
]


def test_every_method_is_checked() -> None:
    assert {spec.partition("[")[0].partition("/")[0] for spec in QUICK} == set(METHODS.names())


@pytest.mark.parametrize("spec", QUICK)
def test_method(spec: str) -> None:
    check_method(spec)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU to compare the CPU with")
@pytest.mark.parametrize("spec", [spec for spec in QUICK if not spec.startswith("anomalib/")])
def test_method_on_a_gpu(spec: str) -> None:
    # Other devices drop other units, and round the coordinates of a rotated image otherwise, so that the nearest
    # pixel is another now and then.
    name, _, options = spec.partition("[")
    alike = {"promptad": "dropout=0", "devnet": "rotation=0", "dra": "rotation=0", "mlep": "rotation=0"}
    check_method(f"{name}[{alike[name]},{options}" if name in alike else spec, device="cuda")


def _roots(folder: Path) -> dict[str, Path | None]:
    for name, types in (("bottle", {"contamination": 2}), ("screw", {"thread_top": 2})):
        trees.category(folder / "mvtec", name, types)
    trees.category(folder / "folder", "été & co", {"déchirure": 2})
    trees.aitex(folder / "aitex")
    return {
        "mvtec": folder / "mvtec",
        "folder": folder / "folder",
        "aitex": folder / "aitex",
        "aitex[classes=one,split=patch]": folder / "aitex",
        "pocket": None,
    }


def test_every_dataset_is_checked(tmp_path: Path) -> None:
    assert {spec.partition("[")[0] for spec in _roots(tmp_path)} == set(DATASETS.names())


@pytest.mark.parametrize("spec", ["mvtec", "folder", "aitex", "aitex[classes=one,split=patch]", "pocket"])
def test_dataset(spec: str, tmp_path: Path) -> None:
    check_dataset(spec, _roots(tmp_path)[spec])
