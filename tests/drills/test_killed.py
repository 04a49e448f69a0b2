"""kill -9 in the middle of the long verbs, or a file cut short, then the same command: the bytes of an unbroken run.

Real processes, the real command line, a tiny digits variant. A process is killed once it has left something to continue
from; a test fails if it ended before that.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cgn.core.files import sha256
from cgn.core.outputs import partial_folder
from tests.conftest import DRILL

pytestmark = [pytest.mark.drill, pytest.mark.long]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with params.yaml and all results of one run without interruption, as `whole_*`."""
    folder = tmp_path_factory.mktemp("world")
    tree: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    digits = tree["mnist"]["digits"]
    digits["prepare"] |= {"train_images": 600, "jitter": None}
    digits["train_cgn"] |= {"updates": 90, "batch_size": 16, "intervals": {"log": 5, "checkpoint": 20, "sheet": 90}}
    digits["train_cgn"]["mechanisms"] |= {"shape_width": 8, "tile_width": 8}
    digits["generate"] = {
        "factual_images": 200,
        "counterfactual_images": 2400,
        "images_per_mask": 2,
        "images_per_shard": 100,
    }
    digits["train_classifier"] |= {"epochs": 3, "checkpoint_updates": 5, "log_updates": 5, "batch_size": 32}
    (folder / "params.yaml").write_text(yaml.safe_dump(tree))
    subprocess.run(command("fetch", folder, assets="fetch"), cwd=ROOT, check=True)
    subprocess.run(command("prepare", folder, assets="fetch", data="data"), cwd=ROOT, check=True)
    subprocess.run(train_cgn(folder, "whole_model"), cwd=ROOT, check=True)
    subprocess.run(generate(folder, "whole_images"), cwd=ROOT, check=True)
    subprocess.run(train_classifier(folder, "whole_classifier"), cwd=ROOT, check=True)
    return folder


def command(verb: str, world: Path, *extra: str, **folders: str) -> list[str]:
    paths = [word for option, name in folders.items() for word in (f"--{option}", str(world / name))]
    params = ["--params", str(world / "params.yaml")]
    return [sys.executable, "-m", "cgn", verb, "mnist/digits", *params, *paths, *extra]


def train_cgn(world: Path, out: str) -> list[str]:
    return command("train_cgn", world, assets="fetch", data="data", model=out)


def generate(world: Path, out: str) -> list[str]:
    return command("generate", world, "--workers", "2", model="whole_model", images=out)


def train_classifier(world: Path, out: str) -> list[str]:
    return command("train_classifier", world, "--arm", "original", data="data", images="whole_images", classifier=out)


def hashes(folder: Path) -> dict[str, str]:
    """Every file of a finished folder, with nothing left over from the kill."""
    return {str(path.relative_to(folder)): sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def kill_when(started: list[str], ready: Callable[[], bool]) -> None:
    """Start a command in a session of its own and kill all of it with SIGKILL once `ready`."""
    process = subprocess.Popen(started, cwd=ROOT, start_new_session=True, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not ready():
        assert process.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline, "left nothing to continue from"
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def recovered(note: Callable[[str, object], None], words: list[str], seen: str) -> None:
    """Run the command to its end, and note how long that took."""
    started = time.monotonic()
    subprocess.run(words, cwd=ROOT, check=True)
    note(DRILL, (seen, f"{time.monotonic() - started:.1f}"))


def test_kill_train_cgn(world: Path, record_property: Callable[[str, object], None]) -> None:
    partial = partial_folder(world / "model")
    kill_when(train_cgn(world, "model"), (partial / "state.pt").is_file)
    assert not (world / "model").exists()
    recovered(record_property, train_cgn(world, "model"), "the command continues from the last checkpoint")
    assert sha256(world / "model" / "model.safetensors") == sha256(world / "whole_model" / "model.safetensors")
    assert hashes(world / "model") == hashes(world / "whole_model")


def test_kill_generate_and_its_workers(world: Path, record_property: Callable[[str, object], None]) -> None:
    partial = partial_folder(world / "images")
    kill_when(generate(world, "images"), lambda: len(list(partial.glob("notes/*.json"))) >= 3)
    kept = {path.name: path.stat().st_mtime_ns for path in partial.glob("*.tar")}
    recovered(record_property, generate(world, "images"), "the command makes the missing shards only")
    for whole in (world / "whole_images").glob("*.tar"):
        assert sha256(world / "images" / whole.name) == sha256(whole)
    assert hashes(world / "images") == hashes(world / "whole_images")
    untouched = [name for name, at in kept.items() if (world / "images" / name).stat().st_mtime_ns == at]
    assert len(untouched) >= 3


def test_kill_train_classifier(world: Path, record_property: Callable[[str, object], None]) -> None:
    partial = partial_folder(world / "classifier")
    kill_when(train_classifier(world, "classifier"), (partial / "state.pt").is_file)
    recovered(record_property, train_classifier(world, "classifier"), "the command continues from the last checkpoint")
    assert hashes(world / "classifier") == hashes(world / "whole_classifier")


def test_truncate_a_checkpoint(world: Path, record_property: Callable[[str, object], None]) -> None:
    state = partial_folder(world / "cut_model") / "state.pt"
    kill_when(train_cgn(world, "cut_model"), state.is_file)
    state.write_bytes(state.read_bytes()[:-1000])
    refused = subprocess.run(train_cgn(world, "cut_model"), cwd=ROOT, check=False, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "state.pt holds no whole checkpoint" in refused.stderr
    assert "remove it and run the same command again" in refused.stderr
    state.unlink()
    recovered(record_property, train_cgn(world, "cut_model"), "refused: no whole checkpoint; without it from the start")
    assert hashes(world / "cut_model") == hashes(world / "whole_model")


def test_truncate_a_shard(world: Path, record_property: Callable[[str, object], None]) -> None:
    shutil.copytree(world / "whole_images", world / "cut_images")
    shards = sorted((world / "cut_images").glob("*.tar"))
    shards[3].write_bytes(shards[3].read_bytes()[:-600])
    read = subprocess.run(
        command("train_classifier", world, "--arm", "counterfactual", data="data", images="cut_images", classifier="x"),
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert read.returncode == 2
    assert shards[3].name in read.stderr
    recovered(
        record_property, generate(world, "cut_images"), "readers refuse it by name; generate makes this shard again"
    )
    assert hashes(world / "cut_images") == hashes(world / "whole_images")


@pytest.mark.parametrize("threads", ["1", "3"])
def test_the_number_of_threads_changes_no_byte(world: Path, threads: str) -> None:
    """A classifier's weights and the decisions of evaluate, whatever the environment asks for."""
    environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), threads)
    trained, decided = f"classifier_{threads}", f"decisions_{threads}"
    subprocess.run(train_classifier(world, trained), cwd=ROOT, check=True, env=environment)
    assert hashes(world / trained) == hashes(world / "whole_classifier")
    evaluate = command("evaluate", world, data="data", classifier="whole_classifier", decisions="whole_decisions")
    if not (world / "whole_decisions").exists():
        subprocess.run(evaluate, cwd=ROOT, check=True)
    subprocess.run([*evaluate[:-1], str(world / decided)], cwd=ROOT, check=True, env=environment)
    assert hashes(world / decided) == hashes(world / "whole_decisions")
