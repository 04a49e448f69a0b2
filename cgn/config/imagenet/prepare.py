"""imagenet prepare: a world drawn by formulas, or folders of photographs that the user has."""

from dataclasses import dataclass

from cgn.config.record import require


@dataclass(frozen=True, kw_only=True)
class World:
    """The miniature world's sets: images of each class, variation, or pair of shape and texture."""

    image_size: int
    train_per_class: int
    val_per_class: int
    per_variation: int
    per_pair: int

    def __post_init__(self) -> None:
        drawn = self.image_size == 32 or self.image_size >= 64
        require(drawn, "image_size", self.image_size, "32, or 64 and more")
        for name, least in (("train_per_class", 1), ("val_per_class", 1), ("per_variation", 2), ("per_pair", 1)):
            require(getattr(self, name) >= least, name, getattr(self, name), f"{least} or more")


@dataclass(frozen=True, kw_only=True)
class Folders:
    """The user's own copies, relative to the project or absolute: ImageFolders of WordNet ids; null: not at hand."""

    train: str
    val: str
    stylized: str | None
    imagenet_c: str | None
    """Prebuilt ImageNet-C, [<kind>/]<corruption>/<severity>/<wnid>/...; null: made on the fly from `val`."""


@dataclass(frozen=True, kw_only=True)
class Prepare:
    """One of the two."""

    world: World | None
    folders: Folders | None

    def __post_init__(self) -> None:
        one = (self.world is None) != (self.folders is None)
        require(one, "world", self.world, "a mapping where folders is null, null where folders is one")
