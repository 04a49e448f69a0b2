"""What runs say of themselves: read where it is there, and never an error where it is not."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import cgn.core.devices as machines
from cgn.core.checkpoints import save_model
from cgn.core.devices import machine
from cgn.core.errors import ArtifactError
from cgn.core.facts import read_facts
from cgn.core.files import read_json, write_json
from cgn.core.metrics import Files
from cgn.evaluation.records import read_record
from cgn.evaluation.suites import numbers, summary
from cgn.imagenet import evaluate as imagenet_evaluate
from cgn.mnist import evaluate as mnist_evaluate
from cgn.mnist.arms import ARMS
from tests.support.sample_predictions import predictions


def test_a_record_is_read_from_the_log_beside_the_folder(tmp_path: Path) -> None:
    write_json(
        tmp_path / "model.log" / "run.json",
        {"seconds": 12.5, "starts": [{}, {}], "finished": "2026-01-01", "machine": {"cores": 2}},
    )
    write_json(tmp_path / "model.log" / "metrics.json", {"loss": {"binary": 3}, "images_per_second": 7.5})
    found = read_record(tmp_path / "model")
    assert (found.seconds, found.starts, found.finished, found.machine) == (12.5, 2, "2026-01-01", {"cores": 2})
    assert found.metric("loss/binary") == 3.0
    assert found.metric("images_per_second") == 7.5
    assert found.metric("loss") is None
    assert found.metric("loss/binary/more") is None


def test_an_unfinished_a_broken_or_an_absent_log_tells_nothing(tmp_path: Path) -> None:
    absent = read_record(tmp_path / "nothing")
    assert (absent.seconds, absent.starts, absent.finished, absent.machine, absent.metrics) == (None, 0, None, {}, {})
    write_json(tmp_path / "begun.log" / "run.json", {"seconds": None, "starts": [{}], "finished": None})
    (tmp_path / "begun.log" / "metrics.json").write_text("{broken", encoding="utf-8")
    begun = read_record(tmp_path / "begun")
    assert (begun.seconds, begun.starts, begun.metrics) == (None, 1, {})
    write_json(tmp_path / "odd.log" / "run.json", ["no mapping"])
    assert read_record(tmp_path / "odd").seconds is None


def test_the_machine_is_told_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stated = tmp_path / "cpuinfo"
    stated.write_text(
        "processor: 0\nmodel name\t: Intel(R) Xeon(R) CPU @ 2.20GHz\nmodel name: other\n", encoding="utf-8"
    )
    monkeypatch.setattr(machines, "CPUINFO", stated)
    monkeypatch.delitem(sys.modules, "torch")
    assert machine()["cpu"] == "Intel Xeon @ 2.20GHz"
    assert machine()["gpus"] == []
    assert machine()["cores"] >= 1
    monkeypatch.setattr(machines, "CPUINFO", tmp_path / "nothing")
    assert machine()["cpu"]


def test_gpus_are_asked_of_a_torch_that_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: f"card {number}")
    assert machine()["gpus"] == ["card 0", "card 1"]


def test_facts_are_read_without_the_tensors(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, {"weight": torch.ones(2)}, facts={"track": "imagenet", "losses": {"l1": 1.5}})
    assert read_facts(path, track="imagenet") == {"track": "imagenet", "losses": {"l1": 1.5}}
    with pytest.raises(ArtifactError, match="is of track 'imagenet', expected 'mnist'"):
        read_facts(path, track="mnist")
    with pytest.raises(ArtifactError, match="is missing"):
        read_facts(tmp_path / "other")
    path.write_bytes(b"<html>")
    with pytest.raises(ArtifactError, match="is not a whole model file"):
        read_facts(path)


def finals(folder: Path, name: str) -> dict[str, float]:
    """Final values as `classifier/head/suite/number` -> value."""

    def flat(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, float]]:
        for key, value in tree.items():
            yield from flat(value, f"{above}{key}/") if isinstance(value, Mapping) else [(above + key, value)]

    return dict(flat(read_json(folder / name)))


def test_metrics_hold_what_is_compared_and_details_hold_all(tmp_path: Path) -> None:
    values = {"accuracy/original/train": 1.0, "accuracy/original/test_random": 0.1, "loss": 0.3}
    Files(tmp_path, compared=("accuracy/*/test_random",)).summary(values)
    assert finals(tmp_path, "metrics.json") == {"accuracy/original/test_random": 0.1}
    assert finals(tmp_path, "details.json") == values


@pytest.mark.parametrize("pace", ["seconds", "images_per_second", "training/ensemble/seconds"])
def test_how_fast_a_run_was_is_no_metric(tmp_path: Path, pace: str) -> None:
    Files(tmp_path).summary({pace: 3.0, "iou/own": 0.5, "seconds_of_film": 2.0})
    assert finals(tmp_path, "metrics.json") == {"iou/own": 0.5, "seconds_of_film": 2.0}
    assert finals(tmp_path, "details.json")[pace] == 3.0
    Files(tmp_path / "out.log").summary({pace: 3.0})
    assert read_record(tmp_path / "out").metric(pace) == 3.0


def test_headlines_are_final_values_by_short_names(tmp_path: Path) -> None:
    """Those that were measured; a verb without headlines writes no file."""
    files = Files(tmp_path, headlines={"top_1": "ensemble/avg/clean/top_1", "bg_gap": "ensemble/shape/in9/bg_gap"})
    files.summary({"ensemble/avg/clean/top_1": 0.54321, "baseline/label/clean/top_1": 0.25})
    assert finals(tmp_path, "headlines.json") == {"top_1": 0.5432}
    Files(tmp_path / "other").summary({"loss": 1.0})
    assert not (tmp_path / "other" / "headlines.json").exists()


def test_headlines_name_values_that_evaluations_have() -> None:
    shares = summary(numbers(predictions()))
    assert set(imagenet_evaluate.HEADLINES.values()) <= shares.keys()
    known = {f"accuracy/{arm}/{split}" for arm in ARMS for split in mnist_evaluate.CONDITIONS}
    assert set(mnist_evaluate.HEADLINES.values()) <= known
    assert not set(mnist_evaluate.HEADLINES) & set(imagenet_evaluate.HEADLINES), "DVC shows them in one table"


def test_curves_have_a_line_for_each_value_of_a_step(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.log({"loss/l1": 2.0, "loss/binary": 0.5}, step=10)
    files.log({"loss/l1": 1.0, "iou/own": 0.75}, step=20)
    files.summary({})
    assert (tmp_path / "curves.csv").read_text().splitlines() == [
        "step,name,value",
        *("10,loss/l1,2.0", "10,loss/binary,0.5"),
        *("20,loss/l1,1.0", "20,iou/own,0.75"),
    ]


def test_what_an_evaluation_of_imagenet_compares_is_few_numbers(tmp_path: Path) -> None:
    """Of about a hundred; each pattern finds something."""
    values = summary(numbers(predictions()))
    Files(tmp_path, compared=imagenet_evaluate.COMPARED).summary(values)
    compared = finals(tmp_path, "metrics.json")
    assert len(values) > 60
    assert len(compared) <= 15
    assert {"baseline/label/clean/top_1", "ensemble/avg/clean/top_1"} <= compared.keys()
    assert {name.split("/")[2] for name in compared} == {"clean", "in9", "cue_conflict", "imagenet_c"}


def test_what_an_evaluation_of_mnist_compares_is_one_number_an_arm(tmp_path: Path) -> None:
    values = {f"accuracy/{arm}/{split}": 0.5 for arm in ARMS for split in mnist_evaluate.CONDITIONS}
    Files(tmp_path, compared=mnist_evaluate.COMPARED).summary(values)
    assert finals(tmp_path, "metrics.json").keys() == {f"accuracy/{arm}/test_random" for arm in ARMS}
