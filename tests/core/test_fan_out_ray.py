"""fan_out over two Ray nodes: killed workers, a bad node, a lost head, bounded queues, and the bytes of a local run."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import yaml

from cgn.core.checkpoints import save_model
from cgn.core.files import sha256
from cgn.core.outputs import partial_folder
from cgn.mnist.generator import build_generator, model_facts
from tests.conftest import DRILL
from tests.flows.conftest import until
from tests.support.ray_cluster import LOOPBACK, RayCluster, ray_cluster

pytest.importorskip("ray", reason="Ray is the dependency group `cluster`")
pytestmark = pytest.mark.long
ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | LOOPBACK
NET = {"shape_width": 4, "tile_width": 4, "noise_size": 6, "image_size": 16}
PROGRAM = """
import json, sys
from functools import partial
from pathlib import Path
from cgn.core.errors import CgnError
from cgn.core.fan_out import choose_workers, fan_out
from tests.support import fan_out_tasks as tasks
workers, folder = choose_workers("cpu", ray=sys.argv[1]), Path(sys.argv[2])
try:
    print(json.dumps({expression}))
except CgnError as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with ray_cluster(nodes=2) as started:
        yield started


def computed(expression: str, address: str, folder: Path) -> tuple[Any, str]:
    """The value of an expression in a process of its own, and what it said on stderr."""
    words = [sys.executable, "-c", PROGRAM.replace("{expression}", expression), address, str(folder)]
    done = subprocess.run(words, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr  # Ray says before it that a worker died


def test_every_item_has_its_result_though_a_worker_is_killed(cluster: RayCluster, tmp_path: Path) -> None:
    opening = "partial(tasks.killed_once, folder=folder)"
    found, said = computed(f"sorted(fan_out({opening}, range(30), workers=workers))", cluster.address, tmp_path)
    assert found == [[number, number**2] for number in range(30)]
    assert (tmp_path / "killed-0").exists()
    assert "Traceback" not in said


def test_an_item_that_always_kills_its_worker_names_itself_and_the_nodes(cluster: RayCluster, tmp_path: Path) -> None:
    opening = "partial(tasks.killed_always, folder=folder)"
    text = f"list(fan_out({opening}, range(30), workers=workers, name='shard {{}}'.format))"
    (kind, message), _ = computed(text, cluster.address, tmp_path)
    assert kind == "WorkerError"
    assert message.startswith("shard 5 failed 3 times, on the Ray nodes 127.0.0.1, ")
    assert "a node that is gone" not in message
    assert "died unexpectedly" in message
    assert len([*tmp_path.glob("killed-*")]) == 3


def test_an_item_that_always_raises_is_one_error(cluster: RayCluster, tmp_path: Path) -> None:
    opening = "partial(tasks.failing, message='the model is broken')"
    (kind, message), _ = computed(f"list(fan_out({opening}, range(9), workers=workers))", cluster.address, tmp_path)
    assert kind == "WorkerError"
    assert "5 failed 3 times" in message
    assert "the model is broken" in message
    assert "the same command continues" in message


def test_a_bad_node_is_left_out(cluster: RayCluster, tmp_path: Path) -> None:
    opening = "partial(tasks.on_a_bad_node, folder=folder)"
    text = f"[node for _, node in fan_out({opening}, range(40), workers=workers)]"
    found, said = computed(text, cluster.address, tmp_path)
    assert len(found) == 40
    assert {*found}.isdisjoint({(tmp_path / "bad").read_text()})
    assert "is left out, because 3 tasks in a row failed there" in said
    assert "No space left on device" in said


def test_few_tasks_are_queued_at_a_time(cluster: RayCluster, tmp_path: Path) -> None:
    text = "tasks.most_ahead(fan_out(tasks.nothing, items := tasks.Counted(300), workers=workers), items)"
    found, _ = computed(text, cluster.address, tmp_path)
    assert found == 4


def test_where_no_cluster_answers_the_error_says_what_to_do(tmp_path: Path) -> None:
    found, _ = computed("list(fan_out(tasks.square, range(3), workers=workers))", "127.0.0.1:1", tmp_path)
    assert found[0] == "WorkerError"
    assert "no Ray cluster answers there" in found[1]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """params.yaml, a tiny model, and `whole`: the shards of a run without Ray."""
    folder = tmp_path_factory.mktemp("world")
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    numbers = {"factual_images": 200, "counterfactual_images": 6000, "images_per_mask": 2, "images_per_shard": 100}
    tree["mnist"]["digits"]["generate"] = numbers
    (folder / "params.yaml").write_text(yaml.safe_dump(tree))
    torch.manual_seed(0)
    tensors = build_generator(**NET).state_dict()
    (folder / "model").mkdir()
    save_model(folder / "model" / "model.safetensors", tensors, facts=model_facts(variant="digits", net=NET))
    subprocess.run(generate(folder, "whole", "--workers", "1"), cwd=ROOT, env=ENVIRONMENT, check=True)
    return folder


def generate(world: Path, out: str, *extra: str) -> list[str]:
    paths = ["--params", str(world / "params.yaml"), "--model", str(world / "model"), "--images", str(world / out)]
    return [sys.executable, "-m", "cgn", "generate", "mnist/digits", *paths, *extra]


def hashes(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def test_two_nodes_write_the_bytes_of_a_local_run(cluster: RayCluster, world: Path) -> None:
    subprocess.run(generate(world, "ray", "--ray", cluster.address), cwd=ROOT, env=ENVIRONMENT, check=True)
    assert hashes(world / "ray") == hashes(world / "whole")


@pytest.mark.drill
def test_kill_a_ray_worker(cluster: RayCluster, world: Path, record_property: Callable[[str, object], None]) -> None:
    partial = partial_folder(world / "disturbed")
    words = generate(world, "disturbed", "--ray", cluster.address)
    with subprocess.Popen(words, cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as process:
        _until_noted(partial, process)
        working = until(lambda: process.poll() is not None or _working(cluster.nodes[1]), what="a shard on this node")
        assert working is not True, "ended too early"
        started = time.monotonic()
        for worker in working:
            worker.kill()
        _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert hashes(world / "disturbed") == hashes(world / "whole")
    record_property(DRILL, ("its shard is made again, the run goes on", f"{time.monotonic() - started:.1f}"))


def _working(node: Sequence[int]) -> list[psutil.Process]:
    """The workers of a node that make a shard now."""
    found = []
    for worker in [child for server in node for child in psutil.Process(server).children()]:
        with suppress(psutil.Error):  # it has ended just now
            if worker.cmdline()[:1] == ["ray::_run"]:
                found.append(worker)
    return found


def _until_noted(partial: Path, process: "subprocess.Popen[str]") -> None:
    """Wait for three finished shards."""
    deadline = time.monotonic() + 120
    while len(list(partial.glob("notes/*.json"))) < 3:
        assert process.poll() is None, "ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.drill
def test_kill_the_ray_head(world: Path, record_property: Callable[[str, object], None]) -> None:
    partial = partial_folder(world / "continued")
    with ray_cluster(nodes=2) as cluster:
        words = generate(world, "continued", "--ray", cluster.address)
        process = subprocess.Popen(words, cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
        _until_noted(partial, process)
        for server in cluster.nodes[0]:
            os.kill(server, signal.SIGKILL)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 2, said
    assert "error: the head of the Ray cluster at" in said
    assert "Traceback" not in said
    kept = {path.name: path.stat().st_mtime_ns for path in partial.glob("*.tar")}
    assert 3 <= len(kept) < len(list((world / "whole").glob("*.tar")))
    with ray_cluster(nodes=2) as cluster:
        started = time.monotonic()
        subprocess.run(generate(world, "continued", "--ray", cluster.address), cwd=ROOT, env=ENVIRONMENT, check=True)
        seconds = time.monotonic() - started
    assert hashes(world / "continued") == hashes(world / "whole")
    unchanged = [name for name, at in kept.items() if (world / "continued" / name).stat().st_mtime_ns == at]
    assert len(unchanged) >= len(kept) - 2  # two may have been written, and not noted
    record_property(DRILL, ("one line, exit status 2; another cluster makes the missing shards only", f"{seconds:.1f}"))
