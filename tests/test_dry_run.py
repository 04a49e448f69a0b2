"""--dry-run of every verb: it prints what would happen, and writes nothing."""

import fcntl
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from cgn import __main__ as front
from cgn.core import outputs
from cgn.core.checkpoints import save_state
from cgn.core.files import write_json
from cgn.core.parameters import Input, Output

ROOT = Path(__file__).parents[1]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Parameters of a tiny digits variant."""
    tree: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    tree["mnist"]["digits"]["prepare"] |= {"train_images": 40, "jitter": None}
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def everything(folder: Path) -> dict[str, tuple[int, int]]:
    """Name -> size and time of the last change."""
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


def dry(words: list[str], capsys: pytest.CaptureFixture[str], *, status: int = 0) -> tuple[list[str], str]:
    """The lines and the error of a dry run, which must leave no trace below the folder of --params."""
    folder = Path(words[words.index("--params") + 1]).parent
    before = everything(folder)
    capsys.readouterr()
    assert front.main([*words, "--dry-run"]) == status
    assert everything(folder) == before
    printed = capsys.readouterr()
    return printed.out.splitlines(), printed.err


def prepare(tmp_path: Path, params: Path) -> list[str]:
    (tmp_path / "fetch").mkdir(exist_ok=True)
    paths = ["--assets", str(tmp_path / "fetch"), "--data", str(tmp_path / "prepare")]
    return ["prepare", "mnist/digits", "--params", str(params), *paths]


@pytest.mark.parametrize(("track", "verb"), [(t, v) for v in front.VERBS for t in front.tracks_with(v)])
def test_every_verb_says_what_it_would_do(
    track: str, verb: str, tmp_path: Path, small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = {"mnist": "mnist/digits", "imagenet": "imagenet/miniature"}[track]
    words = [verb, target, "--params", str(small)]
    with pytest.raises(SystemExit):
        front.main([verb, target, "--help"])
    asked = dict(re.findall(r"--(\w+) (INPUT|OUTPUT|OPTION)", capsys.readouterr().out))
    plain = {"arm": "original", "network": "resnet50", "suite": "all"}
    for option, kind in asked.items():
        words += [f"--{option}", plain[option] if kind == "OPTION" else str(tmp_path / option)]
    lines, error = dry(words, capsys, status=0 if verb == "fetch" else 2)
    assert any(line.endswith(f"its record goes to {front.parse(words).log}") for line in lines)
    if verb == "fetch":
        assert lines[-1] == f"fetch {target} would begin anew"
    else:
        assert any(line.endswith(": MISSING") for line in lines)
        assert "is missing: run its stage first" in error


def test_parameters_are_shown_with_their_source(
    tmp_path: Path, small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines, _ = dry(prepare(tmp_path, small), capsys)
    (line,) = [line.split() for line in lines if line.startswith("prepare.train_images")]
    assert line[1:] == ["40", "images", "params.yaml", "(paper:", "50000)"]
    assert not [line for line in lines if line.startswith("train_cgn.")], "of another verb"
    assert f"--assets {tmp_path / 'fetch'}: present" in lines


def test_a_finished_output_and_one_of_other_parameters(
    tmp_path: Path, small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = prepare(tmp_path, small)
    assert dry(words, capsys)[0][-1] == "prepare mnist/digits would begin anew"
    front.run(words)
    assert "is finished with these parameters and inputs" in dry(words, capsys)[0][-1]
    (tmp_path / "fetch" / "other").touch()
    assert "and replace the output of other parameters or inputs" in dry(words, capsys)[0][-1]


def test_a_training_says_from_where_it_would_go_on(
    tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(_: object, *, assets: Input, data: Input, model: Output) -> None:
        assert assets != data
        save_state(model / "state.pt", {"update": 250})
        raise KeyboardInterrupt

    monkeypatch.setattr("cgn.mnist.train_cgn.train_cgn", stopped)
    for name in ("fetch", "prepare"):
        (tmp_path / name).mkdir()
    paths = ["--assets", str(tmp_path / "fetch"), "--data", str(tmp_path / "prepare")]
    words = ["train_cgn", "mnist/digits", "--params", str(small), *paths, "--model", str(tmp_path / "model")]
    assert front.main(words) == 130
    partial = tmp_path / "model.partial"
    expected = f"train_cgn mnist/digits would continue {partial}: from the checkpoint of update 250 of 1,800"
    assert dry(words, capsys)[0][-1] == expected
    (tmp_path / "prepare" / "other").touch()
    assert dry(words, capsys)[0][-1].endswith(f"would begin anew; {partial}, begun otherwise, would be set aside")
    (tmp_path / "prepare" / "other").unlink()
    (partial / "state.pt").write_bytes(b"broken")
    assert "holds no whole checkpoint" in dry(words, capsys, status=2)[1]


def test_generate_counts_the_missing_shards(
    tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(_: object, *, model: Input, images: Output) -> None:
        assert model.is_dir()
        (images / "notes").mkdir()
        for name in ("factual-000000.tar", "counterfactual-000003.tar"):
            write_json(images / "notes" / f"{name}.json", {})
        raise KeyboardInterrupt

    monkeypatch.setattr("cgn.mnist.generate.generate", stopped)
    (tmp_path / "model").mkdir()
    words = ["generate", "mnist/digits", "--params", str(small)]
    words += ["--model", str(tmp_path / "model"), "--images", str(tmp_path / "images")]
    assert front.main(words) == 130
    assert dry(words, capsys)[0][-1].endswith(f"{tmp_path / 'images.partial'}: 9 of 11 shards are missing")


def test_what_a_run_would_refuse_is_refused(tmp_path: Path, small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = prepare(tmp_path, small)
    log = outputs.log_folder(tmp_path / "prepare")
    log.mkdir()
    with (log / outputs.LOCK).open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "is being made by another process" in dry(words, capsys, status=2)[1]
    assert dry(words, capsys)[0][-1].endswith("would begin anew")
    (tmp_path / "prepare").mkdir()
    (tmp_path / "prepare" / "mine.txt").touch()
    assert "holds files that no verb of this project made" in dry(words, capsys, status=2)[1]
    (tmp_path / "prepare" / "mine.txt").unlink()
    (tmp_path / "prepare").rmdir()
    (tmp_path / "prepare").touch()
    assert "a file of this name is in the way" in dry(words, capsys, status=2)[1]
