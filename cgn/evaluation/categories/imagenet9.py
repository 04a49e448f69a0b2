"""ImageNet-9: which of nine superclasses each of the 1000 classes belongs to (Xiao et al., ICLR 2021).

The superclasses are WordNet's hyponyms of nine synsets, as published with the backgrounds challenge. Decided here: a
class outside them is -1 (630 classes), so that a decision for it is never right.
"""

from typing import Any

import numpy as np

OUTSIDE = -1
CLASSES = 1000

MEMBERS: dict[str, tuple[int, ...]] = {
    "dog": (*range(151, 171), *range(173, 269)),
    "bird": (*range(7, 25), *range(87, 101), *range(127, 147)),
    "wheeled vehicle": (
        407, 408, 428, 436, 444, 468, 511, 547, 555, 561, 565, 569, 573, 586, 603, 609, 612, 627, 656, 661, 665,
        670, 671, 675, 690, 705, 717, 734, 751, 757, 791, 802, 803, 817, 820, 829, 847, 864, 866, 867, 870, 880,
    ),
    "reptile": (*range(33, 69),),
    "carnivore": (*range(269, 281), *range(286, 300), *range(356, 363), 387, 388),
    "insect": (*range(300, 327),),
    "musical instrument": (
        401, 402, 420, 432, 486, 494, 513, 541, 546, 558, 566, 577, 579, 593, 594, 641, 642, 683, 684, 687, 699, 776,
        822, 875, 881, 889,
    ),
    "primate": (*range(365, 385),),
    "fish": (*range(7), *range(389, 398)),
}  # fmt: skip
"""Superclass -> its classes, in the order of the superclasses' numbers, 0 to 8."""


def superclass_of() -> "np.ndarray[Any, np.dtype[np.int64]]":
    """(1000,) the number of each class's superclass, 0 to 8, or -1."""
    found = np.full(CLASSES, OUTSIDE, dtype=np.int64)
    for number, members in enumerate(MEMBERS.values()):
        found[list(members)] = number
    return found
