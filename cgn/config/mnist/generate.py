"""mnist generate: how many images, how they share masks, how they are cut into shards."""

from dataclasses import dataclass

from cgn.config.record import require


@dataclass(frozen=True, kw_only=True)
class Generate:
    """Two splits: `factual` (one label for all mechanisms) and `counterfactual` (a label drawn for each)."""

    factual_images: int
    counterfactual_images: int
    images_per_mask: int
    """Counterfactuals that share one mask, with textures and backgrounds of their own."""
    images_per_shard: int

    def __post_init__(self) -> None:
        require(self.factual_images >= 1, "factual_images", self.factual_images, "1 or more")
        require(self.counterfactual_images >= 1, "counterfactual_images", self.counterfactual_images, "1 or more")
        require(self.images_per_mask >= 1, "images_per_mask", self.images_per_mask, "1 or more")
        whole = self.images_per_shard >= 1 and self.images_per_shard % self.images_per_mask == 0
        require(whole, "images_per_shard", self.images_per_shard, "a multiple of images_per_mask")
