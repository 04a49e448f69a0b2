"""The maps of ImageNet's classes: complete, disjoint and, where the published files are available, equal to them."""

import csv
import json
from itertools import chain
from pathlib import Path

import numpy as np

from cgn.evaluation.suites import CATEGORIES, SUPERCLASSES, superclass_of
from cgn.imagenet.data.wnids import wnids


def test_there_are_a_thousand_ids_in_the_order_of_their_names() -> None:
    ids = wnids()
    assert len(ids) == 1000
    assert list(ids) == sorted(set(ids))
    assert {len(name) for name in ids} == {9}


def test_ids_stand_at_the_published_numbers(test_data: Path) -> None:
    ids = wnids()
    with (test_data / "imagenet_sample" / "labels.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 500
    assert [ids[int(row["class_index"])] for row in rows] == [row["wnid"] for row in rows]
    assert {folder.name for folder in (test_data / "imagenet_odd").iterdir()} <= set(ids)


def test_superclasses_are_disjoint_and_leave_630_classes_out() -> None:
    found = superclass_of()
    members = list(chain(*SUPERCLASSES.values()))
    assert len(members) == len(set(members)) == 370
    assert found.shape == (1000,)
    assert np.bincount(found + 1).tolist() == [630, 116, 52, 42, 36, 35, 27, 26, 20, 16]


def test_superclasses_equal_the_published_map(test_data: Path) -> None:
    published = json.loads((test_data / "imagenet9" / "in_to_in9.json").read_text(encoding="utf-8"))
    found = {str(number): int(superclass) for number, superclass in enumerate(superclass_of())}
    assert found == published


def test_categories_are_sixteen_and_disjoint() -> None:
    members = list(chain(*CATEGORIES.values()))
    assert len(CATEGORIES) == 16
    assert list(CATEGORIES) == sorted(CATEGORIES)
    assert len(members) == len(set(members)) == 207
    assert {name: len(of) for name, of in CATEGORIES.items() if len(of) > 8} == {"bird": 49, "dog": 109}


def test_categories_hold_classes_of_their_kind() -> None:
    """Some ids, looked up in WordNet: a shifted list would move all of them."""
    ids = wnids()
    known = {
        "airplane": "n02690373",  # airliner
        "boat": "n04612504",  # yawl
        "car": "n04285008",  # sports car
        "dog": "n02085782",  # Japanese spaniel
        "knife": "n03041632",  # cleaver
        "oven": "n04111531",  # rotisserie
        "truck": "n04467665",  # trailer truck
    }
    assert all(ids.index(wnid) in CATEGORIES[category] for category, wnid in known.items())
    superclasses = superclass_of()
    assert {int(superclasses[number]) for number in CATEGORIES["dog"] if superclasses[number] >= 0} == {0}
    assert {int(superclasses[number]) for number in CATEGORIES["bird"] if superclasses[number] >= 0} == {1}
