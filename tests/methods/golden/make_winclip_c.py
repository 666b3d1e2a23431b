"""winclip_c.json, from caoyunkang/WinClip; see README.md."""

from __future__ import annotations

import _run

_run.checkout()

import recipes
import torch
from WinCLIP.CLIPAD.model import CLIP
from WinCLIP.model import WinClipAD

clip = CLIP(**recipes.WINCLIP, scales=(2, 3)).eval()
recipes.fill(clip)
detector = WinClipAD.__new__(WinClipAD)
torch.nn.Module.__init__(detector)
detector.model, detector.tokenizer, detector.device = clip, recipes.tokenize, "cpu"
detector.masks, detector.scale_begin_indx = clip.visual.masks, clip.visual.scale_begin_indx
detector.grid_size, detector.visual_gallery = clip.visual.grid_size, None
detector.precision, detector.version = "fp32", "V1"

detector.build_text_feature_gallery("carpet")
images, _ = recipes.winclip_images()
with torch.no_grad():
    maps = detector.calculate_textual_anomaly_score(detector.encode_image(images))
_run.save("winclip_c", {"maps": maps[:, 0]})
