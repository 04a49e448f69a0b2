"""What runs say of themselves: read where it is there, and never an error where it is not."""

import sys
from pathlib import Path

import pytest
import torch

import cgn.core.machine as machines
from cgn.core.checkpoints import read_facts, save_model
from cgn.core.errors import ArtifactError
from cgn.core.files import write_json
from cgn.core.machine import machine
from cgn.core.records import read_record


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
    told = tmp_path / "cpuinfo"
    told.write_text("processor: 0\nmodel name\t: Intel(R) Xeon(R) CPU @ 2.20GHz\nmodel name: other\n", encoding="utf-8")
    monkeypatch.setattr(machines, "CPUINFO", told)
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
