"""ImageNet's 1000 classes: the WordNet id of each, in the order of the class numbers (ILSVRC 2012).

A class folder of ImageNet carries its id as its name. The list is kept (`wnids.json`), so that a folder that holds only
some of the classes still gets the right numbers; counting the folders that are there would shift them. Their names in
words come from torchvision, in the same order.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from cgn.core.files import read_json


@cache
def wnids() -> tuple[str, ...]:
    """The 1000 ids, "n01440764" (tench) first; an id's place is the class number of torchvision's networks."""
    return tuple(read_json(Path(__file__).with_suffix(".json")))


def class_words(class_names: Sequence[str]) -> tuple[str, ...]:
    """Names of classes for readers: of WordNet ids ImageNet's English ones, of any other name the name itself."""
    if not set(class_names) & set(wnids()):
        return tuple(class_names)
    from torchvision.models import ResNet50_Weights

    words = dict(zip(wnids(), ResNet50_Weights.IMAGENET1K_V1.meta["categories"], strict=True))
    return tuple(words.get(name, name) for name in class_names)
