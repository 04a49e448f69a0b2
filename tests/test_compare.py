"""python -m cgn compare: figures of finished runs over their seeds, as tables, files, and blocks in Markdown."""

import csv
import json
from pathlib import Path

import pytest

from cgn import __main__ as front
from cgn.compare import read_runs, rewritten, table
from cgn.core.errors import ConfigError
from cgn.evaluation.intervals import Estimate
from cgn.evaluation.seeds import Figure, SeedRun, mean_interval, over_seeds, student
from tests.support import sample_predictions as made
from tests.support.digit_predictions import write_evaluation

ROOT = Path(__file__).parents[1]


def evaluated(folder: Path, *, seed: int, right: int) -> Path:
    """A run of mnist/digits whose one classifier is right on so many of 100 images."""
    write_evaluation(folder / "evaluate", seed=seed, right=right, images=100)
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for seed, right in enumerate((70, 72, 77)):
        evaluated(tmp_path / f"seed-{seed}", seed=seed, right=right)
    return tmp_path


def test_the_interval_of_a_mean_is_student_s() -> None:
    """Against a textbook: of 1, 2, 3 the mean is 2, s = 1, and t(2; 97.5 %) = 4.3027."""
    low, high = mean_interval([1.0, 2.0, 3.0])
    assert low == pytest.approx(2 - 4.302653 / 3**0.5, abs=1e-6)
    assert high == pytest.approx(2 + 4.302653 / 3**0.5, abs=1e-6)
    assert mean_interval([0.5, 0.5]) == (0.5, 0.5)


def test_student_s_quantile_is_scipy_s() -> None:
    from scipy.special import stdtrit

    assert [student(freedom) for freedom in range(1, 40)] == pytest.approx(
        [stdtrit(freedom, 0.975) for freedom in range(1, 40)], rel=1e-9
    )


def run(seed: int, value: float, *, undecided: str = "") -> SeedRun:
    of = Estimate(value=value, low=value - 0.1, high=value + 0.1)
    figure = Figure(measure="shape bias", head="baseline", of=of, undecided=undecided)
    return SeedRun(target="imagenet/miniature", seed=seed, figures=[figure])


def test_a_seed_that_is_undecided_leaves_the_mean_undecided() -> None:
    """The mean of the others would be a choice among the seeds."""
    (mean,) = over_seeds([run(0, 0.2), run(1, 0.3, undecided="holds 50 %"), run(2, 0.4)])
    assert (mean.mean, mean.low, mean.high, mean.undecided, mean.seeds) == (None, None, None, 1, [0, 1, 2])
    (decided,) = over_seeds([run(0, 0.2), run(1, 0.3), run(2, 0.4)])
    assert decided.mean == pytest.approx(0.3)


def test_a_share_s_interval_stays_in_its_range_and_one_seed_has_none() -> None:
    (mean,) = over_seeds([run(0, 0.99), run(1, 1.0), run(2, 0.9)])
    assert mean.high == 1.0
    (one,) = over_seeds([run(0, 0.99)])
    assert (one.mean, one.low, one.high) == (0.99, None, None)


def test_runs_are_found_and_shown_with_mean_and_interval(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert front.main(["compare", str(runs)]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "counterfactual" in line]
    assert "73.0 %  64.0 to 82.0" in line  # s = 3.606, t(2) = 4.303
    assert "3 (0, 1, 2)" in line
    assert "70.0 % (60.4 to 78.1)" in line  # Wilson's, of 100 images
    assert front.main(["compare", *(str(runs / f"seed-{seed}") for seed in (2, 0, 1))]) == 0
    assert line in capsys.readouterr().out


def test_sweeps_repeat_seeds_of_the_runs_and_are_compared_by_themselves(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert front.main(["compare", str(runs)]) == 0
    alone = capsys.readouterr().out
    point = evaluated(runs / "sweeps" / "digits-seeds" / "cgn-digits-seed-0", seed=0, right=10)
    assert front.main(["compare", str(runs)]) == 0
    assert capsys.readouterr().out == alone
    assert front.main(["compare", str(point.parent)]) == 0
    assert "10.0 %" in capsys.readouterr().out


def test_saved_figures_are_a_run_again(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved, markdown, numbers = tmp_path / "s.json", tmp_path / "s.md", tmp_path / "s.csv"
    words = ["--save", str(saved), "--markdown", str(markdown), "--csv", str(numbers)]
    assert front.main(["compare", str(runs), *words]) == 0
    printed = capsys.readouterr().out
    assert front.main(["compare", str(saved)]) == 0
    assert capsys.readouterr().out == printed
    assert (
        "| mnist/digits | accuracy on random looks | counterfactual | 73.0 % | 64.0 to 82.0 |" in markdown.read_text()
    )
    (row,) = csv.DictReader(numbers.read_text(encoding="utf-8").splitlines())
    assert float(row["mean"]) == pytest.approx(0.73)
    assert row["seeds"] == "3"
    (mean,) = json.loads(saved.read_text(encoding="utf-8"))["means"]
    assert mean["low"] == pytest.approx(float(row["low"]))


def test_a_label_sets_a_run_apart(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = evaluated(tmp_path / "other" / "deep", seed=0, right=10)
    assert front.main(["compare", str(runs / "seed-0"), str(runs / "seed-1"), str(other)]) == 2
    assert "two runs are seed 0 of mnist/digits: set one apart by a label, LABEL=RUN" in capsys.readouterr().err
    words = [str(runs / "seed-0"), str(runs / "seed-1"), f"AVX2={other}"]
    assert front.main(["compare", *words]) == 0
    assert "10.0 %" in capsys.readouterr().out
    lines = table(read_runs(words), layout="seeds")
    assert lines[0] == ["", "seed 0", "seed 1", "seed 0, AVX2", "mean of the seeds"]
    assert lines[1][-1] == "71.0 % (58.3 to 83.7)"  # of the plain two


def test_the_imagenet_track_has_its_heads_in_rows_and_its_measures_in_columns(tmp_path: Path) -> None:
    decisions = made.make_run(tmp_path / "run", made.predictions())["decisions"]
    made.define(decisions, "evaluate", {})
    lines = table(read_runs([str(tmp_path)]), layout="heads")
    assert lines[0][1:] == ["shape bias", "shape accuracy", "background gap, points", "top-1", "error under corruption"]
    assert [line[0] for line in lines[1:]] == ["baseline", "mean of heads", "shape head", "shape + texture"]
    assert lines[1][4] == "95.0 %"  # 19 of 20
    (only,) = table(read_runs([str(tmp_path)]), layout="heads", only=["top-1"])[1:2]
    assert only == ["baseline", "95.0 %"]
    with pytest.raises(
        ConfigError, match=r"--only topp: no figure is called so; known: imagenet/miniature, shape bias"
    ):
        table(read_runs([str(tmp_path)]), layout="heads", only=["topp"])


def test_a_block_in_a_page_is_made_anew(runs: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    first, last = f"<!-- compare: {runs} --layout heads -->", "<!-- end of compare -->"
    page.write_text(f"before\n\n{first}\n| old |\n{last}\n\nafter\n", encoding="utf-8")
    assert front.main(["compare", "--write", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert "| counterfactual | 73.0 % (64.0 to 82.0) |" in text
    assert "old" not in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert rewritten(text, source=page) == text
    page.write_text("no block", encoding="utf-8")
    assert front.main(["compare", "--write", str(page)]) == 2


def test_what_is_missing_or_broken_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert front.main(["compare", str(tmp_path)]) == 2
    assert "has no evaluation (evaluate/decisions.parquet): name a folder of runs" in capsys.readouterr().err
    (tmp_path / "x.json").write_text("{}", encoding="utf-8")
    assert front.main(["compare", str(tmp_path / "x.json")]) == 2
    assert "is no file of figures" in capsys.readouterr().err


@pytest.mark.parametrize("page", ["README.md", "docs/results.md"])
def test_the_tables_of_the_pages_are_what_the_command_makes(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    text = (ROOT / page).read_text(encoding="utf-8")
    again = "python -m cgn compare --write README.md docs/results.md"
    assert rewritten(text, source=Path(page)) == text, f"{page}: renew it by {again}"
