"""GoodsAD: six kinds of supermarket goods, each a mix of many products.

Zhang, Ding, Ban, Dai: "PKU-GoodsAD: A Supermarket Goods Dataset for Unsupervised Anomaly Detection and
Segmentation", IEEE Robotics and Automation Letters 2024.
"""

from __future__ import annotations

from typing import ClassVar

from bench.contracts import DatasetTraits
from bench.datasets.layout import Tree, read_tree
from bench.datasets.published import PublishedDataset

CATEGORIES = ("cigarette_box", "drink_bottle", "drink_can", "food_bottle", "food_box", "food_package")


class GoodsAD(PublishedDataset):
    """GoodsAD, in MVTec AD's layout; the mask of ``test/<type>/000.jpg`` is ``ground_truth/<type>/000.png``."""

    name: ClassVar[str] = "goodsad"
    version: ClassVar[str] = "1"
    traits: ClassVar[DatasetTraits] = DatasetTraits(
        title="GoodsAD",
        source="Zhang et al., PKU-GoodsAD, IEEE Robotics and Automation Letters 2024",
        citation="Zhang, Ding, Ban, Dai: PKU-GoodsAD: A Supermarket Goods Dataset for Unsupervised Anomaly "
        "Detection "
        "and Segmentation, IEEE Robotics and Automation Letters 2024",
        page="https://github.com/jianzhang96/GoodsAD",
        files={"training images": 3136, "normal test images": 1328, "anomalous test images": 1660},
        remark="Counts by category and the licence are not known here.",
        folders=("GoodsAD", "goodsad", "goods_ad"),
    )

    def _list(self) -> Tree:
        return read_tree(self.root, self.traits.title, official=CATEGORIES)
