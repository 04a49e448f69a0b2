"""imagenet report: what it says where something is missing, foreign or broken."""

from dataclasses import asdict
from pathlib import Path

import pytest

from cgn.config.load import load
from cgn.core.errors import ArtifactError
from cgn.core.files import write_json
from cgn.core.page_settings import departures, flat
from cgn.evaluation.examination import Examination
from cgn.tracks.imagenet.published import SETTINGS
from tests.cgn import made_examination as made
from tests.cgn.rendered import DASH, render, told


def test_a_bare_examination_is_enough(tmp_path: Path) -> None:
    """No definition, no log, no sheet, no manifest; one suite."""
    found = render(tmp_path, made.make_run(tmp_path / "run", made.examination(suites=["clean"])))
    for words in (
        "ImageNet-9: not examined",
        "cue conflict: not examined",
        "Stylized-ImageNet: not examined",
        "corruptions (ImageNet-C): not examined",
        "The folders of this run hold no sheets",
        "ImageNet-9 was not run.",
        "No corrupted pictures were examined.",
        "Every picture could be read.",
        "ImageNet-A 3.4 % before, 1.4 % after",
    ):
        assert found.said(words), words
    assert "What the heads said" not in found.html
    times = found.table("Time and cost of each stage")
    assert set(times) == {"prepare", "train_cgn", "generate", "evaluate"}
    assert {row["Seconds"] for row in times.values()} == {DASH}
    assert found.table("Shape bias, top-1 and top-5")["baseline"]["Top-1: here"] == told(19, 20)
    assert found.table("Shape bias, top-1 and top-5")["baseline"]["Shape bias: here"] == DASH


def test_suites_that_were_wanted_and_parts_that_are_missing_are_named(tmp_path: Path) -> None:
    whole = made.examination(suites=["in9", "imagenet_c"])
    kept = ~whole.rows["condition"].str.startswith("fog/")
    folders = made.make_run(tmp_path / "run", Examination(rows=whole.rows[kept], facts=whole.facts))
    made.define(folders["decisions"], "evaluate", {"suites": ["clean", "in9"], "accelerator": "cpu"})
    found = render(tmp_path, folders)
    assert found.said("clean validation images: not examined, though evaluate.suites names clean")
    assert found.said("cue conflict: not examined, as evaluate.suites leaves cue_conflict out")
    assert found.said("ImageNet-9: no mixed_next, only_fg, only_bg_b, only_bg_t")
    assert found.said("Corruptions: no fog; so there is no mCE")
    assert found.table("Errors under corruption")["baseline"]["mCE"] == DASH
    assert "fog" not in found.table("Mean error over five severities")


def test_a_network_of_somebody_else_is_shown_without_a_comparison(tmp_path: Path) -> None:
    whole = made.examination(heads=[("baseline", "label")])
    folders = made.make_run(
        tmp_path / "run", Examination(rows=whole.rows.assign(classifier="vgg<16>"), facts=whole.facts)
    )
    found = render(tmp_path, folders)
    assert found.said("No baseline was examined, so nothing tells what the counterfactuals changed")
    assert "vgg&lt;16&gt;" in found.html
    assert found.table("Shape bias, top-1 and top-5")["vgg<16>"]["Top-1: here"] == told(19, 20)
    assert "The ensemble against the baseline" not in found.summary


def test_what_a_model_file_does_not_say_is_looked_for_in_the_log(tmp_path: Path) -> None:
    folders = made.make_run(tmp_path / "run", made.examination(suites=["clean"]))
    made.note(folders["model"], seconds=1.0, metrics={"iou": {"own": 0.66}, "start": {"iou": {"own": 0.33}}})
    found = render(tmp_path, folders)
    masks = found.table("Masks against true silhouettes")
    assert masks["Best IoU with the labelled class"] == {"before training": "0.33", "after training": "0.66"}


def test_a_loss_that_was_left_out_puts_the_run_in_its_row(tmp_path: Path) -> None:
    folders = made.make_run(tmp_path / "run", made.examination(suites=["clean"]))
    losses = {
        "l1": 100.0,
        "perceptual": [4.0, 4.0, 4.0, 4.0],
        "binary": 300.0,
        "mask_size": {"weight": 500.0, "smallest": 0.1, "largest": 0.9},
        "texture": [0.0, 0.0, 0.0, 0.0],
        "background": 2000.0,
    }
    made.define(folders["model"], "train_cgn", {"losses": losses})
    made.model(folders["model"], **{"mask/mean": 0.85})
    found = render(tmp_path, folders)
    ablation = found.table("Which loss does what")
    assert ablation["without the texture loss"]["Mean mask: here"] == "0.85"
    assert ablation["all losses"]["Mean mask: here"] == DASH


def test_missing_or_foreign_decisions_are_an_error(tmp_path: Path) -> None:
    folders = made.make_run(tmp_path / "other", made.examination(suites=["clean"], variant="full"))
    with pytest.raises(ArtifactError, match="is of variant 'full', expected 'miniature'"):
        render(tmp_path, folders)
    (folders["decisions"] / "decisions.parquet").unlink()
    with pytest.raises(ArtifactError, match=r"decisions\.parquet is missing"):
        render(tmp_path, folders)
    folders = made.make_run(tmp_path / "run", made.examination(suites=["clean"]))
    made.define(folders["images"], "generate", {}, variant="mini")
    with pytest.raises(ArtifactError, match="images is of variant 'mini', expected 'miniature'"):
        render(tmp_path, folders)


def test_a_broken_film_is_named(tmp_path: Path) -> None:
    folders = made.make_run(tmp_path / "run", made.examination(suites=["clean"]))
    path = folders["images"] / "interpolations" / "all-0-1.gif"
    path.parent.mkdir()
    path.write_bytes(b"<html>")
    with pytest.raises(ArtifactError, match=r"all-0-1\.gif is no GIF picture"):
        render(tmp_path, folders)


def test_published_settings_are_parameters_that_exist() -> None:
    params = load(Path(__file__).parents[2] / "params.yaml")
    for variant in ("miniature", "mini", "full"):
        told = asdict(params.variant(f"imagenet/{variant}"))
        known = flat(told)
        assert set(SETTINGS) <= set(known), variant
        listed = {name: list(value) if isinstance(value, tuple) else value for name, value in known.items()}
        kinds = {name: type(listed[name]) for name in SETTINGS}
        assert {name: type(value) for name, value in SETTINGS.items()} == kinds
    differing = departures({"train_cgn.batch_size": 1}, {"train_cgn": {"batch_size": 18}})
    assert differing == [("train_cgn.batch_size", 1, 18)]


@pytest.mark.parametrize("told", [["baseline"], "baseline", {"baseline": ["x"]}, {"baseline": {"params": 3}}])
def test_classifiers_of_another_form_are_an_error(tmp_path: Path, told: object) -> None:
    folders = made.make_run(tmp_path / "run", made.examination(suites=["clean"]))
    write_json(folders["decisions"] / "classifiers.json", told)
    with pytest.raises(ArtifactError, match=r"classifiers\.json is not what evaluate writes .*: run evaluate again"):
        render(tmp_path, folders)
    write_json(folders["decisions"] / "classifiers.json", {"baseline": {"training": 3}})
    with pytest.raises(ArtifactError, match=r"classifiers\.json holds trainings that evaluate does not write"):
        render(tmp_path, folders)
