"""python -m cgn: the command line, what a run writes of itself, and what it says when something is wrong."""

import errno
import json
import os
import platform
import re
import shutil
import stat
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml

from cgn import __main__ as front
from cgn.config.mnist import Evaluate
from cgn.core import files, outputs, run_record
from cgn.core.checkpoints import save_model, save_state
from cgn.core.errors import ArtifactError, CgnError, ConfigError
from cgn.core.metrics import Files, MetricSink
from cgn.core.parameters import Input, OptionalInput, Output, Speed
from cgn.core.run_record import code_digest

ROOT = Path(__file__).parents[1]


def fetch(tmp_path: Path, *extra: str) -> list[str]:
    return ["fetch", "mnist/digits", "--params", str(ROOT / "params.yaml"), "--assets", str(tmp_path / "fetch"), *extra]


def prepare(tmp_path: Path, params: Path) -> list[str]:
    paths = ["--assets", str(tmp_path / "fetch"), "--data", str(tmp_path / "prepare")]
    return ["prepare", "mnist/digits", "--params", str(params), *paths]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Parameters of a tiny digits variant."""
    tree: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    tree["mnist"]["digits"]["prepare"] |= {"train_images": 40, "jitter": None}
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("mnist/digits", r"digits  size unknown  in the package scikit-learn  \[BSD-3.*\n1 files; 0 to get: 0 bytes"),
        ("imagenet/miniature", r"biggan\.safetensors +1,\d{3},\d{3} bytes  in the package .*\[MIT"),
        ("imagenet/mini", r"(?s)resnet50\S+ +102,530,333 bytes  from https://\S+  \[BSD.* and 3 of unknown size"),
    ],
)
def test_fetch_lists_what_it_would_get_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], target: str, expected: str
) -> None:
    monkeypatch.delenv("CGN_MIRROR", raising=False)
    monkeypatch.setattr("requests.Session.get", None)
    command = fetch(tmp_path, "--list")
    command[1] = target
    assert front.main(command) == 0
    assert re.search(expected, capsys.readouterr().out)
    assert not list(tmp_path.iterdir())


def test_the_listing_says_what_is_there_already(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the finished folder, or in what an unfinished run left."""
    command = fetch(tmp_path, "--list")
    command[1] = "mnist/wildlife"
    content, name = (ROOT / "LICENSE").read_bytes(), "vgg16-397923af.pth"
    for folder in (outputs.partial_folder(tmp_path / "fetch"), tmp_path / "fetch"):
        folder.mkdir()
        (folder / name).write_bytes(content)
        front.main(command)
        assert f"{name}             size unknown  from https" in capsys.readouterr().out, "other bytes of the name"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cgn.download.verification.digest_mismatch", lambda _, path: None if path.exists() else "missing")
        front.main(command)
    printed = capsys.readouterr().out
    assert f"there: {tmp_path / 'fetch' / name}" in printed
    assert "23 files; 22 to get" in printed


def test_only_fetch_can_be_listed(tmp_path: Path, small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        front.parse([*prepare(tmp_path, small), "--list"])
    assert "unrecognized arguments: --list" in capsys.readouterr().err


def test_a_run_defines_itself_and_ends_with_its_time(tmp_path: Path) -> None:
    call = front.run(fetch(tmp_path))
    note = json.loads((call.log / "run.json").read_text())
    assert (note["verb"], note["track"], note["variant"], note["seed"]) == ("fetch", "mnist", "digits", 0)
    assert note["params"] == {"digits": "scikit-learn", "look": "double_colored", "features": "none"}
    assert note["finished"]
    assert note["versions"]["torch"]
    assert len(note["starts"]) == 1
    assert call.out == tmp_path / "fetch"
    assert not outputs.partial_folder(call.out).exists()


def test_run_json_is_there_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(_: object, *, assets: Output) -> None:
        assert json.loads((tmp_path / "fetch.log" / "run.json").read_text())["finished"] is None
        (assets / "work").touch()
        raise ArtifactError("stopped here")

    monkeypatch.setattr("cgn.mnist.fetch.fetch", failing)
    for starts in (1, 2):
        with pytest.raises(ArtifactError, match="stopped here"):
            front.run(fetch(tmp_path))
        assert len(json.loads((tmp_path / "fetch.log" / "run.json").read_text())["starts"]) == starts
    assert outputs.partial_folder(tmp_path / "fetch").is_dir()
    assert not (tmp_path / "fetch").exists()


@pytest.mark.long
def test_the_same_command_gives_the_same_bytes_and_another_seed_others(tmp_path: Path, small: Path) -> None:
    front.run(fetch(tmp_path))
    front.run(prepare(tmp_path, small))
    first = files.folder_digest(tmp_path / "prepare")
    front.run(prepare(tmp_path, small))
    assert files.folder_digest(tmp_path / "prepare") == first
    small.write_text(small.read_text().replace("seed: 0", "seed: 1"))
    front.run(prepare(tmp_path, small))
    assert files.folder_digest(tmp_path / "prepare") != first


def test_a_missing_or_unfinished_input_is_named(tmp_path: Path, small: Path) -> None:
    with pytest.raises(ArtifactError, match=r"--assets .*fetch is missing: run its stage first"):
        front.run(prepare(tmp_path, small))
    outputs.partial_folder(tmp_path / "fetch").mkdir()
    with pytest.raises(ArtifactError, match=r"--assets .*fetch is unfinished: run its stage again"):
        front.run(prepare(tmp_path, small))


def test_an_unknown_variant_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    command = fetch(tmp_path)
    command[1] = "mnist/digit"
    with pytest.raises(ConfigError, match=r"unknown variant 'mnist/digit'; known: mnist/digits"):
        front.run(command)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def own_verb(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A verb `inspect` that only the track mnist has; it reads the section `evaluate`. What it was called with."""
    calls: list[dict[str, Any]] = []

    def inspect(
        config: Evaluate, *, seed: int, data: Input, more: OptionalInput = None, out: Output, way: str, fast: Speed = 0
    ) -> None:
        calls.append({"config": config, "seed": seed, "data": data, "more": more, "way": way, "fast": fast})
        (out / "work").touch()

    module = ModuleType("cgn.mnist.inspect")
    module.__dict__.update(inspect=inspect, SECTION="evaluate", __spec__=ModuleSpec("cgn.mnist.inspect", None))
    monkeypatch.setitem(sys.modules, "cgn.mnist.inspect", module)
    monkeypatch.setitem(front.VERBS, "inspect", "look at it")
    return calls


def test_a_verb_may_belong_to_one_track_and_read_another_section(
    tmp_path: Path, small: Path, own_verb: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    words = ["--params", str(small), "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--way", "slow"]
    call = front.run(["inspect", "mnist/digits", *words, "--fast", "3"])
    (given,) = own_verb
    assert isinstance(given["config"], Evaluate)
    assert (given["seed"], given["more"], given["way"], given["fast"]) == (0, None, "slow", 3)
    assert given["data"] == tmp_path / "data"
    definition = json.loads((call.out / outputs.DEFINITION).read_text())
    assert definition["options"] == {"way": "slow"}
    assert definition["params"] == json.loads((call.log / "run.json").read_text())["params"]
    assert "batch_size" in definition["params"]
    assert front.main(["inspect", "imagenet/miniature", *words]) == 2
    assert "the track imagenet has no verb inspect; it is a verb of mnist" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="0"):
        front.parse(["inspect", "--help"])
    assert "(track mnist)" in capsys.readouterr().out


@pytest.mark.usefixtures("own_verb")
def test_what_a_verb_of_another_section_began_is_current(
    tmp_path: Path, small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    words = ["--params", str(small), "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--way", "slow"]
    front.run(["inspect", "mnist/digits", *words])
    (tmp_path / "out").rename(outputs.partial_folder(tmp_path / "out"))
    definition = json.loads((tmp_path / "out.partial" / outputs.DEFINITION).read_text())
    files.write_json(tmp_path / "out.partial" / outputs.DEFINITION, definition | {"code": code_digest()})
    listed = ran(["clean", "--runs", str(tmp_path), "--params", str(small)], capsys)
    assert listed[0].endswith("out.partial: unfinished: the same command continues it")


def test_every_command_is_found_and_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        front.main(["--help"])
    printed = capsys.readouterr().out
    assert all(f"  {name} " in printed for name in (*front.VERBS, *front.COMMANDS))
    for name in front.COMMANDS:
        with pytest.raises(SystemExit, match="0"):
            front.main([name, "--help"])
        assert f"python -m cgn {name}" in capsys.readouterr().out


def test_help_needs_no_tensors() -> None:
    words = "import runpy, sys; sys.modules.update(torch=None, numpy=None); sys.argv = ['cgn', '--help']"
    run = f"{words}; runpy.run_module('cgn', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", run], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "  train_cgn " in done.stdout


def test_verbs_that_need_no_tensors_start_without() -> None:
    """Each of these packages takes a second to import."""
    names = ("mnist.fetch", "mnist.evaluate", "mnist.report", "imagenet.fetch", "imagenet.survey", "imagenet.report")
    absent = ("torch", "torchvision", "lightning_fabric", "webdataset", "sklearn")
    imports = "; ".join(f"import cgn.{name}" for name in names)
    check = f"import sys; sys.modules.update(dict.fromkeys({absent}, None)); {imports}"
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_unknown_verb_lists_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        front.parse(["trian_cgn", "mnist/digits"])
    assert "train_classifier" in capsys.readouterr().err


def test_a_verb_has_the_options_of_its_track(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A track's own function is its command line: what the other track's needs is neither asked for nor accepted."""
    words = ["--assets", str(tmp_path / "fetch"), "--model", str(tmp_path / "model")]
    assert set(front.parse(["train_cgn", "imagenet/miniature", *words]).options) == {"assets", "model", "ray"}
    data = ["--data", str(tmp_path / "data")]
    call = front.parse(["train_cgn", "mnist/digits", *words, *data])
    assert (set(call.options), call.output, call.defining) == ({"assets", "data", "model"}, "model", {})
    with pytest.raises(SystemExit, match="2"):
        front.parse(["train_cgn", "mnist/digits", *words])
    assert "the following arguments are required: --data" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        front.parse(["train_cgn", "imagenet/miniature", *words, *data])
    assert "unrecognized arguments: --data" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--help"], ["imagenet/miniature", "--help"], ["audio/speech", "--help"]])
def test_a_verb_explains_its_options_with_or_without_a_track(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        front.parse(["train_classifier", *words])
    printed = capsys.readouterr().out
    assert "--arm" in printed
    assert "(track imagenet)" in printed


@pytest.mark.parametrize("track", ["mnist/digits", "imagenet/miniature"])
def test_a_verb_refuses_an_arm_before_anything_is_written(tmp_path: Path, track: str) -> None:
    (tmp_path / "data").mkdir()
    paths = ["--data", str(tmp_path / "data"), "--classifier", str(tmp_path / "out")]
    words = ["train_classifier", track, "--params", str(ROOT / "params.yaml"), *paths, "--arm"]
    with pytest.raises(ConfigError, match=r"--arm is 'cgn', allowed: "):
        front.run([*words, "cgn"])
    with pytest.raises(ConfigError, match=r"arm '\w+' of \w+/\w+ needs --images: give that folder"):
        front.run([*words, "gan" if track == "mnist/digits" else "ensemble"])
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_errors_are_one_line_without_a_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert front.main([*fetch(tmp_path)[:3], str(tmp_path / "absent.yaml"), "--assets", str(tmp_path / "x")]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert "absent.yaml is missing" in printed
    assert printed.count("\n") == 1


def test_ctrl_c_is_one_line_and_keeps_what_was_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cgn.mnist.fetch.fetch_all", interrupted)
    assert front.main(fetch(tmp_path)) == 130
    assert capsys.readouterr().err == "interrupted: the same command continues what it began\n"
    assert outputs.partial_folder(tmp_path / "fetch").is_dir()


@pytest.mark.parametrize("name", ["..", ".", "", "/", "fetch/.."])
def test_an_output_without_a_name_of_its_own_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """It would be a folder that holds other things, which a finished output replaces."""
    below = tmp_path / "project" / "below"
    below.mkdir(parents=True)
    (below.parent / "kept").touch()
    monkeypatch.chdir(below)
    monkeypatch.setattr("cgn.core.outputs.shutil.rmtree", None)
    assert front.main([*fetch(tmp_path)[:-1], name]) == 2
    assert "a folder with a name of its own" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["below", "kept", "project"]


@pytest.mark.parametrize("content", [{"photo.jpg": "mine"}, {"definition.json": '{"verb": "train_cgn"}'}])
def test_a_folder_that_the_verb_did_not_make_is_kept(tmp_path: Path, content: dict[str, str]) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name, text in content.items():
        (out / name).write_text(text)
    with pytest.raises(ArtifactError, match=r"cannot write .*out: .*nothing of it was touched"):
        front.run([*fetch(tmp_path)[:-1], str(out)])
    assert {path.name: path.read_text() for path in out.iterdir()} == content
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_appears_while_the_verb_works_is_kept(tmp_path: Path) -> None:
    def build() -> None:
        with outputs.building(tmp_path / "out", definition={}) as folder:
            (folder / "made").touch()
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "photo.jpg").touch()

    with pytest.raises(ArtifactError, match="no verb of this project made"):
        build()
    assert (tmp_path / "out" / "photo.jpg").exists()
    assert (tmp_path / "out.partial" / "made").exists()


def test_a_link_in_the_place_of_the_output_is_kept(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match=r"out: it is a link.*elsewhere"):
        front.run([*fetch(tmp_path)[:-1], str(tmp_path / "out")])
    assert (tmp_path / "out").is_symlink()


def test_a_file_in_the_way_of_the_output_is_kept(tmp_path: Path) -> None:
    (tmp_path / "fetch").write_text("precious")
    with pytest.raises(ArtifactError, match="a file of this name is in the way"):
        front.run(fetch(tmp_path))
    assert everything(tmp_path) == {"fetch": b"precious"}


@pytest.mark.parametrize(
    ("number", "message"),
    [(errno.ENOSPC, "no space is left"), (errno.EACCES, "permission denied"), (errno.EROFS, "read-only")],
)
def test_no_space_or_permission_is_said_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, message: str
) -> None:
    front.run(fetch(tmp_path))
    before = files.folder_digest(tmp_path / "fetch")

    def full(*_: object, **__: object) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(CgnError, match=message):
        front.run(fetch(tmp_path))
    monkeypatch.undo()
    kept = [folder for folder in (tmp_path / "fetch", tmp_path / "fetch.partial") if folder.is_dir()]
    assert len(kept) == 1
    front.run(fetch(tmp_path))
    assert files.folder_digest(tmp_path / "fetch") == before


def work(tmp_path: Path, definition: dict[str, Any], *, code: str = "a") -> bool:
    """Begin to build, and end by a kill; whether earlier work was there to continue."""
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt), outputs.building(out, definition=definition, code=code) as folder:  # noqa: PT012
        found = (folder / "work").exists()
        assert not list(folder.glob(".*.tmp"))
        (folder / "work").touch()
        (folder / ".work.123.tmp").touch()
        raise KeyboardInterrupt
    return found


def everything(folder: Path) -> dict[str, bytes]:
    """All files below, by name."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def classify(tmp_path: Path, params: Path, *, arm: str) -> list[str]:
    command = ["train_classifier", "mnist/digits", "--params", str(params), "--arm", arm]
    return [*command, "--data", str(tmp_path / "prepare"), "--classifier", str(tmp_path / "out")]


@pytest.fixture
def begun(tmp_path: Path, small: Path) -> Path:
    """Data, a classifier's unfinished work of another definition, and the record of the run that left it."""
    front.run(fetch(tmp_path))
    front.run(prepare(tmp_path, small))
    work(tmp_path, {"seed": 9})
    (tmp_path / "out.log" / "metrics.jsonl").write_text('{"step": 1}\n')
    return small


def test_a_refused_option_leaves_everything_as_it_was(tmp_path: Path, begun: Path) -> None:
    before = everything(tmp_path)
    with pytest.raises(ConfigError, match="--arm is 'orginal', allowed: original, gan"):
        front.run(classify(tmp_path, begun, arm="orginal"))
    with pytest.raises(ConfigError, match="arm 'gan' of mnist/digits needs --images"):
        front.run(classify(tmp_path, begun, arm="gan"))
    evaluate = ["evaluate", "imagenet/miniature", "--params", str(begun), "--data", str(tmp_path / "prepare")]
    evaluate += ["--suite", "x"]
    with pytest.raises(ConfigError, match="--suite is 'x'"):
        front.run([*evaluate, "--classifier", str(tmp_path / "prepare"), "--decisions", str(tmp_path / "out")])
    assert everything(tmp_path) == before


def test_what_is_refused_only_once_it_is_opened_leaves_everything_as_it_was(tmp_path: Path, begun: Path) -> None:
    """Data of another variant, which the verb itself refuses; the folder of its work holds another definition."""
    tree: dict[str, Any] = yaml.safe_load(begun.read_text())
    tree["mnist"]["other"] = tree["mnist"]["digits"]
    begun.write_text(yaml.safe_dump(tree))
    before, command = everything(tmp_path), classify(tmp_path, begun, arm="original")
    command[1] = "mnist/other"
    with pytest.raises(ArtifactError, match="is of variant 'digits', expected 'other'"):
        front.run(command)
    assert everything(tmp_path) == before


def test_a_refused_command_leaves_a_finished_output_of_its_own_in_place(tmp_path: Path) -> None:
    with outputs.building(tmp_path / "out", definition={"seed": 0}, code="a") as folder:
        (folder / "work").touch()
    before = everything(tmp_path)
    for _ in range(2):
        with pytest.raises(ArtifactError), outputs.building(tmp_path / "out", definition={"seed": 0}, code="b"):
            raise ArtifactError("refused")
        assert everything(tmp_path) == before


def test_a_failed_command_keeps_its_results_for_the_next_time(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError), outputs.building(tmp_path / "out", definition={"seed": 0}) as folder:  # noqa: PT012
        (folder / "work").touch()
        raise ArtifactError("the disk is full")
    assert work(tmp_path, {"seed": 0}, code="")


def test_a_first_command_that_is_refused_leaves_nothing(tmp_path: Path) -> None:
    for refusal in (ArtifactError("foreign"), ConfigError("no GPU")):
        with pytest.raises(CgnError), outputs.building(tmp_path / "out", definition={}) as folder:  # noqa: PT012
            (folder.with_name("out.log") / "run.json").touch()
            raise refusal
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o027])
def test_every_file_has_the_mode_that_the_umask_gives(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        save_model(tmp_path / "model.safetensors", {"weight": torch.zeros(2)}, facts={})
        save_state(tmp_path / "state.pt", {"update": 1})
        files.write_json(tmp_path / "manifest.json", {})
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == dict.fromkeys(("model.safetensors", "state.pt", "manifest.json"), 0o666 & ~umask)


def ran(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    capsys.readouterr()
    assert front.main(arguments) == 0
    return capsys.readouterr().out.splitlines()


def test_stale_folders_are_listed_with_their_sizes_and_removed_when_asked(
    tmp_path: Path, small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    front.run(fetch(runs))
    front.run(prepare(runs, small))
    work(runs, {"seed": 1})
    work(runs, {"seed": 2})
    (runs / "gone.log").mkdir()
    (runs / "gone.log" / "run.json").write_text("{}")
    (runs / "mine.log").mkdir()
    (runs / "mine.log" / "diary.txt").write_text("precious")
    (runs / "mine.partial").mkdir()
    (runs / "mine.partial" / "diary.txt").write_text("precious")
    (next(runs.glob("out.partial-*")) / "state.pt").write_bytes(bytes(2_500_000))
    command, before = ["clean", "--runs", str(runs), "--params", str(small)], everything(runs)
    printed = ran(command, capsys)
    assert everything(runs) == before
    assert [line.split()[0] for line in printed] == ["stale", "kept", "stale", "stale", "stale", "4"]
    assert printed[0].endswith("gone.log: the record of a run that made nothing")
    assert printed[1].endswith("mine.partial: not made by this project")
    assert printed[3].endswith("out.partial: begun with other parameters or code")
    assert "2.5 MB" in printed[4]
    assert printed[-1] == "4 stale, 2.5 MB; the same command with --yes removes them"
    ran([*command, "--yes"], capsys)
    left = {path.name for path in runs.iterdir()}
    assert left == {"fetch", "fetch.log", "prepare", "prepare.log", "mine.log", "mine.partial"}
    assert front.main([*command[:2], str(tmp_path / "nowhere"), *command[3:]]) == 2
    assert "nowhere: there is no such folder" in capsys.readouterr().err
    assert [line.split()[0] for line in ran([*command, "--yes"], capsys)] == ["kept", "0"]


def test_what_the_same_command_would_continue_is_kept(
    tmp_path: Path, small: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    front.run(fetch(tmp_path))

    def killed(_: object, *, assets: Input, data: Output) -> None:
        del assets
        (data / "work").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr("cgn.mnist.prepare.prepare", killed)
    with pytest.raises(KeyboardInterrupt):
        front.run(prepare(tmp_path, small))
    command = ["clean", "--runs", str(tmp_path), "--params", str(small), "--yes"]
    printed = ran(command, capsys)
    assert printed[0].endswith("prepare.partial: unfinished: the same command continues it")
    assert printed[-1] == "0 stale, 0.0 MB"
    small.write_text(small.read_text().replace("train_images: 40", "train_images: 41"))
    assert ran(command, capsys)[0].startswith("removed")


def test_what_a_process_works_on_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with outputs.building(tmp_path / "out", definition={}):
        printed = ran(["clean", "--runs", str(tmp_path), "--params", str(ROOT / "params.yaml"), "--yes"], capsys)
        assert printed[0].endswith("out.partial: a process is working on it")
    assert {path.name for path in tmp_path.iterdir()} == {"out", "out.log"}


def test_unfinished_work_waits_for_its_definition_and_code(tmp_path: Path) -> None:
    assert not work(tmp_path, {"seed": 0})
    assert work(tmp_path, {"seed": 0})
    assert not work(tmp_path, {"seed": 1})
    assert not work(tmp_path, {"seed": 0}, code="b")
    assert work(tmp_path, {"seed": 1})
    assert work(tmp_path, {"seed": 0})
    assert work(tmp_path, {"seed": 0}, code="b")


def test_one_process_builds_a_folder_at_a_time(tmp_path: Path) -> None:
    message = "is being made by another process"
    with outputs.building(tmp_path / "out", definition={}), pytest.raises(ArtifactError, match=message):
        work(tmp_path, {})


def test_an_error_elsewhere_is_not_reported_as_one_of_the_output(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), outputs.building(tmp_path / "a" / "out", definition={}):
        (tmp_path / "b" / "absent").read_text()
    with (
        pytest.raises(ArtifactError, match="no space is left"),
        outputs.building(tmp_path / "out", definition={}) as folder,
    ):
        raise OSError(errno.ENOSPC, "no", str(folder / "shard.tar"))


BROKEN_RECORDS = {
    "cut short": b'{"verb": "fetch", "star',
    "a list": b"[1, 2]",
    "a number": b"3",
    "not UTF-8": b'{"verb": "\xe9\xff"}',
    "nested without end": b"[" * 100_000,
    "empty": b"",
    "starts of a wrong kind": b'{"starts": 3}',
}


@pytest.mark.parametrize("name", BROKEN_RECORDS)
def test_a_broken_run_json_is_written_anew_and_stops_nothing(tmp_path: Path, name: str) -> None:
    whole = front.run(fetch(tmp_path)).log / "run.json"
    before = json.loads(whole.read_text())
    content = BROKEN_RECORDS[name]
    if name == "starts of a wrong kind":
        content = json.dumps(before | {"starts": 3, "finished": None}).encode()
    whole.write_bytes(content)
    front.run(fetch(tmp_path))
    after = json.loads(whole.read_text())
    assert after["finished"]
    assert len(after["starts"]) == 1
    assert after["params"] == before["params"]


def test_a_broken_run_json_does_not_cost_the_metrics_of_work_that_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def working(_: object, *, assets: Output, sink: MetricSink) -> None:
        sink.log({"loss": 0.5}, step=3)
        (assets / "work").touch()
        raise ArtifactError("stopped here")

    monkeypatch.setattr("cgn.mnist.fetch.fetch", working)
    log = outputs.log_folder(tmp_path / "fetch")
    for expected in (1, 2):
        with pytest.raises(ArtifactError, match="stopped here"):
            front.run(fetch(tmp_path))
        assert len((log / "metrics.jsonl").read_text().splitlines()) == expected
        (log / "run.json").write_text('{"verb"')
    assert "run.json is broken" in capsys.readouterr().out


def test_lines_of_metrics_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    sink = Files(tmp_path)
    sink.log({"loss": 0.5}, step=1)
    broken = (
        b"\xff\xfe\n",
        b"[1]\n",
        b'"text"\n',
        b'{"loss": 1}\n',
        b'{"step": "2", "loss": 1}\n',
        b"[" * 100_000 + b"\n",
    )
    more = (b'{"step": 2, "loss": {"a": 1}}\n', b'{"step": 2, "l\n')
    with sink.record.open("ab") as file:
        file.writelines((*broken, *more))
    sink.log({"loss": 0.25}, step=3)
    sink.rewind(3)
    assert [json.loads(line)["step"] for line in sink.record.read_text().splitlines()] == [1, 3]
    sink.summary({"loss": 0.25})
    assert (tmp_path / "curves.csv").read_text().splitlines() == ["step,name,value", "1,loss,0.5", "3,loss,0.25"]


@pytest.mark.parametrize("content", ["[]", "3", '"text"', "null"])
def test_json_of_another_kind_than_an_object_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "training.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"training\.json holds a \w+, not an object: run the stage"):
        files.read_object(tmp_path / "training.json")


@pytest.mark.parametrize("name", ["table.json", "summary.md"])
def test_a_full_disk_keeps_what_was_there(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    files.write_text(path, "before")
    (tmp_path / f".{name}.{platform.node()}-{os.getpid()}.tmp").symlink_to("/dev/full")
    with pytest.raises(ArtifactError, match=rf"cannot write .*{name}: no space is left on this disk; nothing is lost"):
        files.write_text(path, "after" * 10_000)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_an_input_that_the_disk_cannot_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(path: Path) -> str:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path / "shard.tar"))

    (tmp_path / "fetch").mkdir()
    monkeypatch.setattr("cgn.core.run_record.folder_digest", failing)
    with pytest.raises(ArtifactError, match=r"--assets .*shard\.tar cannot be read: Input/output error"):
        front.run(prepare(tmp_path, ROOT / "params.yaml"))


def test_a_lock_file_that_runs_write_does_not_mark_the_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "toy")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "toy@localhost")
    files = [tmp_path / "dvc.lock", tmp_path / "code.py"]
    for file in files:
        file.write_text("1\n")
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "one"]):
        subprocess.run(["git", *words], check=True)
    marks = []
    for file in files:
        file.write_text("2\n")
        revision = run_record.RunRecord(tmp_path / file.stem, {}).values["starts"][0]["git_revision"]
        marks.append(revision[40:])
    assert marks == ["", "+"]


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("name", ["params", "fetch"])
def test_a_command_whose_words_nobody_takes_ends_without_a_traceback(
    tmp_path: Path, name: str, unbuffered: str
) -> None:
    command = [sys.executable, "-m", "cgn", name, "mnist/digits"]
    command += ["--assets", str(tmp_path / "fetch")] if name == "fetch" else []
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    given: dict[str, Any] = {"cwd": ROOT, "env": environment, "stderr": subprocess.PIPE, "text": True}
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, check=False, **given)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: what {name} prints cannot be written: No space left on device")
    assert done.stderr.count("\n") == 1
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, stdout=writer, check=False, **given)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_an_error_of_the_program_is_not_taken_for_one_of_printing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(_: object, *, assets: Output) -> None:
        raise BrokenPipeError(errno.EPIPE, f"no connection for {assets}")

    monkeypatch.setattr("cgn.mnist.fetch.fetch", lost)
    with pytest.raises(BrokenPipeError, match="no connection for"):
        front.main(fetch(tmp_path))


def test_a_verb_ends_well_without_a_stdout(tmp_path: Path) -> None:
    command = f"exec '{sys.executable}' -m cgn fetch mnist/digits --assets '{tmp_path}/fetch' >&-"
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_record_of_a_run_that_made_nothing_is_listed_and_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = front.run(fetch(tmp_path))
    assert {path.name for path in call.log.iterdir()} >= {"run.json", "details.json", "lock"}
    shutil.rmtree(call.out)
    for words, word in ([], "stale"), (["--yes"], "removed"):
        assert front.main(["clean", "--runs", str(tmp_path), *words]) == 0
        assert f"{word:8}" in capsys.readouterr().out
    assert not call.log.exists()


def test_a_folder_of_runs_that_is_not_there_is_refused_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert front.main(["clean", "--runs", str(tmp_path / "nope")]) == 2
    assert capsys.readouterr().err == (
        f"error: --runs {tmp_path / 'nope'}: there is no such folder; name the one that holds the outputs\n"
    )
