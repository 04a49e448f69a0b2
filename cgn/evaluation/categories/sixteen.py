"""The sixteen entry-level categories of the cue-conflict test and their ImageNet classes (Geirhos et al., 2018, 2019).

A category's members are those of the 1000 classes that are WordNet hyponyms of it, as published with the stimuli
(github.com/rgeirhos/texture-vs-shape): not every class of the kind is one. Decided here: categories are numbered in
alphabetical order, and what is published is kept even where it surprises (no Chihuahua among dogs, no ostrich among
birds).
"""

MEMBERS: dict[str, tuple[int, ...]] = {
    "airplane": (404,),
    "bear": (294, 295, 296, 297),
    "bicycle": (444, 671),
    "bird": (
        8, *range(10, 17), 18, 19, 20, 22, 23, 24, *range(80, 84), *range(87, 97), 98, 99, 100, *range(127, 134),
        *range(135, 146),
    ),
    "boat": (472, 554, 625, 814, 914),
    "bottle": (440, 720, 737, 898, 899, 901, 907),
    "car": (436, 511, 817),
    "cat": (281, 282, 283, 284, 285, 286),
    "chair": (423, 559, 765, 857),
    "clock": (409, 530, 892),
    "dog": (
        *range(152, 192), *range(193, 204), *range(205, 227), *range(228, 242), *range(243, 251), *range(252, 258),
        259, 261, 262, 263, *range(265, 269),
    ),
    "elephant": (385, 386),
    "keyboard": (508, 878),
    "knife": (499,),
    "oven": (766,),
    "truck": (555, 569, 656, 675, 717, 734, 864, 867),
}  # fmt: skip
"""Category -> its classes, 0 to 999."""

NAMES = tuple(MEMBERS)
