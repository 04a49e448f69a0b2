"""What default variants give over seeds and machines: which runs lie outside, and how the file is filled."""

import json
from pathlib import Path
from typing import Any

import pytest

from cgn.config.load import load
from cgn.core.devices import describe_machine, machine
from cgn.core.files import write_json
from cgn.evaluation.expected import FILE, Headline, deciding, measured, remarks
from tests.benchmarks import expected as command
from tests.support import sample_predictions as made
from tests.support.rendered import render

ROOT = Path(__file__).parents[2]
TARGET = "imagenet/miniature"
PARAMS: dict[str, Any] = load(ROOT / "params.yaml").variant(TARGET).model_dump()
GAP = "background gap (shape + texture)"
XEON, EPYC = "Intel Xeon with AMX", "AMD EPYC with AVX2"


def noted(path: Path, *runs: tuple[int, str, float | None]) -> Path:
    """A file with one figure, of (seed, machine, value)."""
    held = [{"seed": seed, "machine": on, "figures": {GAP: value}} for seed, on, value in runs]
    entry = {"parameters": deciding(PARAMS), "units": {GAP: "points"}, "runs": held}
    write_json(path, {"about": "", "variants": {TARGET: entry}})
    return path


def said(file: Path, value: float | None, *, params: dict[str, Any] | None = None) -> str:
    figures = [Headline(name=GAP, value=value, unit="points")]
    return " ".join(remarks(figures, target=TARGET, params=params or PARAMS, file=file))


def test_a_figure_outside_the_range_over_seeds_and_machines_is_named(tmp_path: Path) -> None:
    file = noted(tmp_path / "e.json", (0, XEON, 7.8), (1, XEON, 11.9), (2, XEON, 14.4), (5, EPYC, 10.0))
    remark = said(file, 0.219)
    assert f"{GAP} 21.9 points lies outside the 7.8 to 14.4 measured over 4 runs." in remark
    assert f"Measured were seeds 0 to 2 on {XEON}; seed 5 on {EPYC}." in remark
    assert "Another processor or instruction set rounds differently" in remark
    assert "in 2 of 5 cases" in remark
    assert "lies outside" in said(file, 0.0774)
    assert said(file, 0.1439) == (
        f"Every headline figure lies within what was measured over 4 runs (seeds 0 to 2 on {XEON}; seed 5 on {EPYC})."
    )


def test_another_machine_widens_the_range(tmp_path: Path) -> None:
    narrow = noted(tmp_path / "narrow.json", (0, XEON, 7.8), (1, XEON, 14.4))
    wide = noted(tmp_path / "wide.json", (0, XEON, 7.8), (1, XEON, 14.4), (0, EPYC, 21.9))
    assert "lies outside" in said(narrow, 0.219)
    assert "lies outside" not in said(wide, 0.219)


def test_what_was_undecided_is_no_end_of_a_range(tmp_path: Path) -> None:
    file = noted(tmp_path / "e.json", (0, XEON, 7.8), (1, XEON, None), (2, XEON, 14.4))
    assert "measured over 2 runs" in said(file, 0.3)
    assert said(file, None) == ""
    assert said(noted(tmp_path / "one.json", (0, XEON, 7.8), (1, XEON, None)), 0.3) == "", "one value is no range"


@pytest.mark.parametrize(
    ("verb", "key", "value", "applies"),
    [
        ("train_cgn", "updates", 20, False),
        ("prepare", "folders", {"train": "x"}, False),
        ("evaluate", "corruption_images", 9, False),
        ("train_classifier", "accelerator", "cpu", True),
        ("evaluate", "workers", 2, True),
    ],
)
def test_the_range_is_for_the_default_parameters_alone(
    verb: str, key: str, value: object, applies: bool, tmp_path: Path
) -> None:
    file = noted(tmp_path / "e.json", (0, XEON, 7.8), (1, XEON, 14.4))
    params = {**PARAMS, verb: {**PARAMS[verb], key: value}}
    assert bool(said(file, 0.3, params=params)) is applies
    without = {name: of for name, of in PARAMS.items() if name != verb}
    assert said(file, 0.3, params=without) == ""


@pytest.mark.parametrize("target", command.DEFAULTS)
def test_the_file_that_ships_holds_for_the_parameters_that_ship(target: str) -> None:
    """Where this fails, parameters have changed since: measure anew, python -m tests.benchmarks.expected --renew."""
    known = measured(target)
    assert known is not None
    assert known.parameters == deciding(load(ROOT / "params.yaml").variant(target).model_dump())
    assert len(known.runs) >= 3
    for run in known.runs:
        assert set(run["figures"]) == set(known.units)


def run_folder(root: Path, *, params: dict[str, Any] = PARAMS, seed: int = 4, on: str = "AVX2") -> Path:
    """A finished run in the pipeline's layout."""
    folders = made.make_run(root / "made", made.predictions())
    home = root / TARGET
    home.mkdir(parents=True)
    names = {"data": "prepare", "model": "train_cgn", "images": "generate", "decisions": "evaluate"}
    for role, verb in names.items():
        folders[role].rename(home / verb)
        definition = {"verb": verb, "track": "imagenet", "variant": "miniature", "seed": seed, "params": params[verb]}
        write_json(home / verb / "definition.json", {**definition, "inputs": {}})
        log = {"machine": {"cpu": "Abacus 9000", "instructions": on, "cores": 3, "gpus": []}}
        write_json(home / f"{verb}.log" / "run.json", log)
    write_json(home / "evaluate" / "classifiers.json", {"baseline": {"params": params["train_classifier"]}})
    return root


def entry(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text())["variants"][TARGET]
    return found


def noting(file: Path, *arguments: object) -> int:
    """Without folders: none; those of the checkout, which the command takes, are no part of a test."""
    folders = arguments or (file.parent / "no runs",)
    return command.main([*map(str, folders), "--file", str(file), "--params", str(ROOT / "params.yaml")])


def test_runs_of_more_seeds_and_machines_are_added(tmp_path: Path) -> None:
    file = tmp_path / "e.json"
    runs = [run_folder(tmp_path / name, seed=seed, on=on) for name, seed, on in (("a", 1, "AVX2"), ("b", 0, "AMX"))]
    assert noting(file, *runs) == 0
    assert noting(file, runs[0], "--machine", EPYC) == 0
    assert noting(file, runs[0]) == 0, "the same seed and machine take the place of what was noted"
    machines = [(run["machine"], run["seed"]) for run in entry(file)["runs"]]
    assert machines == [(EPYC, 1), ("Abacus 9000 with AMX", 0), ("Abacus 9000 with AVX2", 1)]
    figures = entry(file)["runs"][0]["figures"]
    assert (figures[GAP], figures["shape bias (shape head)"], figures["top-1 (baseline)"]) == (10.0, 87.5, 95.0)
    assert entry(file)["parameters"] == deciding(PARAMS)
    assert noting(file, runs[1], "--renew") == 0
    assert [run["seed"] for run in entry(file)["runs"]] == [0]


def test_a_run_of_other_parameters_or_of_two_machines_is_left_out_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "e.json"
    short = {**PARAMS, "train_cgn": {**PARAMS["train_cgn"], "updates": 9}}
    assert noting(file, run_folder(tmp_path / "short", params=short)) == 2
    assert "its parameters are not the default ones: train_cgn.updates" in capsys.readouterr().err
    two = run_folder(tmp_path / "two")
    log = {"machine": {"cpu": "Abacus 9000", "instructions": "AMX", "cores": 3, "gpus": []}}
    write_json(two / TARGET / "evaluate.log" / "run.json", log)
    assert noting(file, two) == 2
    assert "give --machine" in capsys.readouterr().err
    assert entry(file)["runs"] == []


def test_older_runs_are_dropped_where_a_default_changed(tmp_path: Path) -> None:
    file = noted(tmp_path / "e.json", (0, XEON, 7.8))
    stored = json.loads(file.read_text())
    stored["variants"][TARGET]["parameters"]["train_cgn.updates"] = 9
    write_json(file, stored)
    assert noting(file) == 0
    assert entry(file)["runs"] == []
    del stored["variants"][TARGET]["parameters"]["train_cgn.updates"]
    write_json(file, stored)
    noting(file)
    assert len(entry(file)["runs"]) == 1, "a parameter that was added keeps them"


def test_the_report_says_that_a_run_lies_outside_on_its_page_in_its_summary_and_when_it_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The made run's gap of 10.0 points for the mean of heads is far from what the miniature gives."""
    home = run_folder(tmp_path) / TARGET
    names = {"data": "prepare", "model": "train_cgn", "images": "generate", "decisions": "evaluate"}
    page = render(tmp_path, {role: home / verb for role, verb in names.items()})
    words = "background gap (mean of heads) 10.0 points lies outside the"
    assert page.said(words)
    assert words in page.summary
    assert words in capsys.readouterr().out


def test_a_machine_is_its_processor_and_instructions_and_gpus() -> None:
    described_as = {"cpu": "Abacus 9000", "instructions": "AVX2", "cores": 2, "gpus": ["card", "card"]}
    assert describe_machine(described_as) == "Abacus 9000 with AVX2, 2 \N{MULTIPLICATION SIGN} card"
    assert describe_machine({"cpu": "Abacus 9000", "cores": 2}) == ""
    assert describe_machine(machine()).startswith(machine()["cpu"])


def test_an_instruction_set_that_was_limited_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert machine()["instructions"].endswith("(ONEDNN_MAX_CPU_ISA=AVX2)")
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    assert "(" not in machine()["instructions"]


def test_the_file_lies_beside_its_module() -> None:
    assert FILE.is_file()
