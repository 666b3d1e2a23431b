"""Options of PromptAD, each with the source of its default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class PromptADConfig:
    """Options. STATED: in the paper. INHERITED: from code that the paper names. OPEN: neither; our default.

    Encoder and text:
        encoder: text-image encoder; ViT-B/16 is STATED, OpenAI's weights INHERITED.
        img_size: side that images are scaled to; OPEN, ``none`` = the encoder's own (224 for ViT-B/16).
        prompt_set: ``dataset_types``: each category's sentences, whose defect words are the dataset's own types
            (STATED, though it tells a zero-shot method what to look for); ``generic``: the five words that the
            paper prints for screw, for every category; ``shared``: one pair of sentences for all categories.
        prompt_pool: OPEN. ``one_sentence`` with all words; ``mean_of_types``: mean embedding of a sentence per
            word; ``sample_type``: in training, the sentence of the image's own type (a normal image takes a type
            of its category's labelled anomalies, lest the text tell the label), in scoring the mean.
        text_norm: ``raw`` embeddings (INHERITED from CLIPSeg) or ``l2``-normalised ones (support images too).
    Network:
        clip_layers: encoder blocks (0-based) that are read: three, or one for three plainly stacked blocks.
            Empty: 3+7+9 of 12 (INHERITED from CLIPSeg), in another encoder those at the same depth: block i of
            n with (i + 1) / n nearest to 4/12, 8/12, 10/12, so 1+3+4 of 6.
        D: decoder width; OPEN, CLIPSeg's. The paper only says that it is below the text's.
        nhead, ffn, dropout, norm_first: of the transformer blocks; INHERITED, torch's defaults in CLIPSeg.
        film_at: ``first`` block's input (INHERITED), ``every`` block's, or ``off``.
        share_heads, share_protos: one 1x1 convolution for all blocks instead of one each; OPEN.
    Components (STATED; off for the rows of Table 4):
        abn, nor: the two branches.
        ccl: cross-view scores, Eqs. 1-2. Off: s_a = intra_abn, s_n = -intra_nor.
        cmi: mutual masks, Eqs. 3-4.
    Scores and masks:
        cross_sim: ``dot`` product (STATED), ``scaled`` by 1/sqrt(D), or ``cosine`` times ``tau``.
        tau: see ``cross_sim``; OPEN.
        cmi_where: OPEN, the least determined. ``layerwise``: at each block, masked tokens enter the next block,
            and the last block's scores are taken again from masked tokens; ``final_only``: the latter alone;
            ``input_next_only``: the former alone.
        cmi_order: both masks from unmasked scores (``simultaneous``), or ``sequential``: the abnormality branch
            first, its new scores mask the normality branch; OPEN.
        cmi_detach: no gradient through a mask into the branch that made it; OPEN.
        cmi_mask: ``sigmoid_relu`` (STATED, in [0.5, 1)); ``rescaled`` to [0, 1), which removes what is below
            sigma, as the text has it; ``residual``: 1 + mask.
        sigma: threshold of the masks; STATED.
    Loss:
        topk: share of patches whose mean is an image's score; STATED.
        alpha: margin of Eq. 5; STATED.
        ref_scores: mean 0 and deviation 1 (``constants``, STATED) or of 5000 ``sampled`` scores (DevNet's code).
        supervision: Eq. 5 on ``image`` scores (STATED), on each patch (``pixel``: masks of the labelled
            anomalies, max-pooled to the patch grid), or ``both``, added.
        deep_weights: of the three blocks' losses; OPEN ("training is performed on each transformer layer").
        loss_sum: add Eq. 5 on s_a + s_n; OPEN (the paper has the two separately).
    Training:
        base: the seen categories used: ``all`` (STATED, section 4.1) or a random ``single`` one (section 3.1).
        n_query, episodes_per_step: an episode is n_query labelled images of one random seen category with its
            two prompts (STATED but for the numbers); a step has several episodes; OPEN.
        sampling: ``x10``: images drawn from the category's, each anomaly listed ten times (STATED); ``balanced``
            and ``2:1``: one half, one third anomalies on average, as DevNet's and DRA's batches.
        ensure_anomaly: put an anomaly into each step that drew none; OPEN.
        optim: ``adamw`` with lr falling to ``lr_end`` on a cosine (INHERITED from CLIPSeg), or ``adam``, lr times
            0.1 after each third (INHERITED from DevNet and DRA, with lr=2e-4 and wd=1e-5).
        lr, lr_end, wd: rates of ``adamw`` (INHERITED from CLIPSeg, but wd is ours).
        iters: steps; OPEN (CLIPSeg 20000, DevNet 1000, DRA 600).
        grad_clip: largest gradient norm, 0 = any; from DevNet and DRA.
    Scoring:
        image_score: top-10 % mean of the ``map`` s_n + s_a; of the two ``branches``' maps, added; the ``max``
            of the map; or the top-10 % mean of the map summed over ``blocks``; OPEN.
        gauss_sigma: smoothing of the anomaly map in pixels of the scaled image; 0 = none, and maps stay at the
            patch grid; OPEN.
        few_shot_proto: what K normal images give in place of phi_nor (STATED: "the visual embeddings"): their
            mean embedding (``cls``), or all K (``nearest``) or all their patch tokens (``patches``), of which
            each patch meets the closest; OPEN.
        few_shot_film: the normality branch is modulated by its prompt (``text``) or by the images' mean embedding
            (``visual``); OPEN.
    """

    encoder: str = "openai/ViT-B-16"
    img_size: int | None = None
    prompt_set: Literal["dataset_types", "generic", "shared"] = "dataset_types"
    prompt_pool: Literal["one_sentence", "mean_of_types", "sample_type"] = "one_sentence"
    text_norm: Literal["raw", "l2"] = "raw"
    clip_layers: tuple[int, ...] = ()
    D: int = 64
    nhead: int = 4
    ffn: int = 2048
    dropout: float = 0.1
    norm_first: bool = False
    film_at: Literal["first", "every", "off"] = "first"
    share_heads: bool = False
    share_protos: bool = False
    abn: bool = True
    nor: bool = True
    ccl: bool = True
    cmi: bool = True
    cross_sim: Literal["dot", "scaled", "cosine"] = "dot"
    tau: float = 10.0
    cmi_where: Literal["layerwise", "final_only", "input_next_only"] = "layerwise"
    cmi_order: Literal["simultaneous", "sequential"] = "simultaneous"
    cmi_detach: bool = True
    cmi_mask: Literal["sigmoid_relu", "rescaled", "residual"] = "sigmoid_relu"
    sigma: float = 0.5
    topk: float = 0.1
    alpha: float = 5.0
    ref_scores: Literal["constants", "sampled"] = "constants"
    supervision: Literal["image", "pixel", "both"] = "image"
    deep_weights: tuple[float, ...] = (1.0, 1.0, 1.0)
    loss_sum: bool = False
    base: Literal["all", "single"] = "all"
    n_query: int = 8
    episodes_per_step: int = 4
    sampling: Literal["x10", "balanced", "2:1"] = "x10"
    ensure_anomaly: bool = True
    optim: Literal["adamw", "adam"] = "adamw"
    lr: float = 1e-3
    lr_end: float = 1e-4
    wd: float = 1e-4
    iters: int = 2000
    grad_clip: float = 1.0
    image_score: Literal["map", "branches", "max", "blocks"] = "map"
    gauss_sigma: float = 0.0
    few_shot_proto: Literal["cls", "nearest", "patches"] = "cls"
    few_shot_film: Literal["text", "visual"] = "text"

    def __post_init__(self) -> None:
        """Refuse values that contradict each other.

        Raises:
            ValueError: naming the options.
        """
        if not (self.abn or self.nor):
            raise ValueError("abn and nor cannot both be off")
        if not (self.abn and self.nor) and (self.ccl or self.cmi or self.loss_sum):
            raise ValueError("ccl, cmi and loss_sum need both branches; with one, add ccl=off,cmi=off")
        if len(self.clip_layers) not in (0, 1, 3) or len(set(self.clip_layers)) != len(self.clip_layers):
            raise ValueError("clip_layers takes one or three different blocks, such as 3+7+9")
        if min(self.clip_layers, default=0) < 0:
            raise ValueError("clip_layers counts from 0")
        if len(self.deep_weights) != 3:
            raise ValueError("deep_weights takes three numbers, one per block, such as 1+1+1")
        positive = ("D", "nhead", "ffn", "tau", "topk", "n_query", "episodes_per_step", "lr", "iters")
        low = [name for name in positive if getattr(self, name) <= 0]
        if low:
            raise ValueError(f"{', '.join(low)} must be above 0")
        not_negative = ("dropout", "wd", "lr_end", "grad_clip", "gauss_sigma")
        low = [name for name in not_negative if getattr(self, name) < 0]
        if low:
            raise ValueError(f"{', '.join(low)} must not be below 0")
        if self.D % self.nhead:
            raise ValueError(f"D={self.D} cannot be divided into nhead={self.nhead} heads")
        if self.topk > 1 or self.dropout > 0.99:
            raise ValueError("topk is at most 1, dropout at most 0.99")
