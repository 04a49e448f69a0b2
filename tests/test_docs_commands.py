"""Every command of README.md and docs/: run here in a fresh clone, run by another test, or not possible here.

The commands of the bash blocks run as they are typed, page by page, in one clone, whose sizes in params.yaml are small.
`uv run` and `pip install uv` come from stand-ins that use the environment of the tests; paths outside the checkout are
the test's own. A command that needs more than this is in RUN_BY (another test runs it, or the same with a toy) or in
CANNOT, with the reason.
"""

import json
import os
import random
import re
import shutil
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import yaml

from tests.flows.conftest import answers, end_group, until

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
BLOCK = re.compile(r"^( *)```(?:bash|sh|shell|console)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"(^|\s)#(?=\s|$).*")
SUITE = re.compile(r"uv run (?:--group \w+ )?pytest\b(?! --long).*")
"""Runs a part of the tests, as .ci/run does."""
RUN_BY = {
    "uv run prefect server start .*": "tests/test_docs_commands.py::prefect",
    "export PREFECT_API_URL=.*": "tests/test_docs_commands.py::prefect",
    "uv run prefect worker start .*": "tests/test_docs_commands.py::prefect",
    "uv run prefect --no-prompt deploy .*": "tests/test_docs_commands.py::prefect",
    "uv run prefect flow-run cancel ID": "tests/flows/test_pipeline.py::test_a_cancelled_run_leaves_nothing",
    "uv run prefect deployment run cgn-sweep .*": (
        "tests/flows/test_sweep.py::test_a_sweep_by_prefect_runs_below_one_flow_run"
    ),
    "uv run python -m cgn compare SEED0/runs .*": "tests/test_compare.py::test_saved_figures_are_a_run_again",
    "uv run python -m tests.gpu --device cpu .*": (
        "tests/gpu/test_command.py::test_the_command_runs_on_a_cpu_and_writes_its_rows"
    ),
    "python -m cgn evaluate_network .*": (
        "tests/imagenet/test_evaluate_network.py::test_the_front_door_takes_a_file_and_defines_the_run_by_its_digest"
    ),
    "uv run --group cluster python -m cgn generate .*": (
        "tests/core/test_fan_out_ray.py::test_two_nodes_write_the_bytes_of_a_local_run"
    ),
    "RAY_ADDRESS=.* dvc repro": "tests/core/test_fan_out_ray.py::test_two_nodes_write_the_bytes_of_a_local_run",
    "export RAY_USAGE_STATS_ENABLED=0 .*": (
        "tests/core/test_fan_out_ray.py::test_two_nodes_write_the_bytes_of_a_local_run"
    ),
    "uv run --group cluster ray start .*": (
        "tests/core/test_fan_out_ray.py::test_two_nodes_write_the_bytes_of_a_local_run"
    ),
    "uv run --group cluster python -m flows.gpus ray start .*": (
        "tests/flows/test_gpus.py::test_a_node_of_ray_may_claim_what_is_free"
    ),
    "uv run --group cluster python -m cgn train_cgn .* --ray auto": (
        "tests/core/test_launch_ray.py::test_a_cluster_trains_as_one_process_and_continues_by_itself_after_a_worker_was_killed"
    ),
    "torchrun .*": (
        "tests/core/test_several_machines.py::test_two_machines_train_as_one_and_continue_after_one_was_lost"
    ),
}
"""Commands, as patterns, and the test that runs the same on a toy, a small network or own ports."""
CANNOT = {
    "uv run python -m tests.gpu": "needs a GPU",
    "uv run --group services python -m tests.pages.screenshots": "takes the images of what tests/pages visits",
    ".*docker compose .*": "needs a container runtime; test_services starts the same services from packages",
    "(uv run dvc repro && )?uv run (--group cluster )?python -m tests.benchmarks.*": (
        "a measurement, which takes minutes to an hour on a machine that does nothing else"
    ),
}
STATUSES = {"python -m cgn doctor": {0, 1}}
"""Commands that may end with another status than 0: doctor with 1 on a machine with a problem."""
FIRST_PORT = random.randrange(20_000, 30_000)  # the system gives none of these to others
PORTS = {port: str(FIRST_PORT + number) for number, port in enumerate(("4200", "5000", "5001", "5002"))}
"""The ports of the pages, and the test's own."""
OWN = {
    "/mnt/shared/cgn": "{}/store",
    r"\.\./other/runs": "{}/checkout/runs",
    r"prefect server start": "prefect server start --port 4200",
    r"mlflow ui": "mlflow ui --port 5000",
    r"trials 10\b": "trials 2",
    r"seeds 0 1 2\b": "seeds 0 1",
}
"""What is not as typed: paths outside the checkout, `{}` is the test's folder; own ports; fewer trials and seeds."""
SMALL = {
    "mnist.digits.prepare.train_images": 100,
    "mnist.digits.prepare.jitter": None,
    "mnist.digits.train_cgn.updates": 8,
    "mnist.digits.train_cgn.intervals": {"log": 2, "checkpoint": 4, "sheet": 4},
    "mnist.digits.generate": {"factual_images": 100, "counterfactual_images": 100, "images_per_shard": 50},
    "mnist.digits.train_classifier.epochs": 1,
    "imagenet.miniature.prepare.world": {"train_per_class": 4, "val_per_class": 3, "per_variation": 2, "per_pair": 1},
    "imagenet.miniature.train_cgn.updates": 2,
    "imagenet.miniature.train_cgn.batch_size": 9,
    "imagenet.miniature.train_cgn.intervals": {"log": 1, "checkpoint": 1, "sheet": 1},
    "imagenet.miniature.generate": {
        "counterfactual_images": 36,
        "images_per_shard": 36,
        "batch_size": 36,
        "interpolations": [],
    },
    "imagenet.miniature.train_classifier.epochs": 1,
    "imagenet.miniature.evaluate": {"corruption_images": 9, "corruptions": ["contrast"], "workers": 0},
    "imagenet.miniature.report.examples": 1,
    "mnist.digits.gate": {"accuracy": 0.0, "gain": None},  # any classifier passes, so there is a champion to serve
    "imagenet.miniature.gate": {"background_gap": {"most": None}, "shape_bias": {"least": None}, "top_1": {"least": 0}},
}
ASSIGNMENT = re.compile(r"export .*|\w+=\$\(.*\)")
"""Holds for the commands of its page that follow."""
SERVE = re.compile(r".*\buv run mlflow (ui|models serve) .*")
"""Ends when the next server starts, or with its page."""
DEPLOYED = re.compile(r"uv run prefect deployment run .*")
"""Ends when the flow run does that it starts."""
GROUPS = {"cluster": "ray", "publish": "onnx"}
"""Dependency groups that a command names, and a package of each."""
UV = """#!/bin/sh
# uv run COMMAND, in the environment of the tests
[ "$1" = run ] || exit 2
shift
while :; do case "$1" in --group) shift 2 ;; --no-default-groups) shift ;; *) break ;; esac; done
exec "$@"
"""
PIP = """#!/bin/sh
[ "$*" = "install uv" ]
"""


def commands(text: str) -> list[str]:
    """The commands of the bash blocks of a page, one line each, without comments."""
    found = []
    for block in BLOCK.finditer(text):
        joined = re.sub(r"\|\n", "| ", block[2].replace("\\\n", " "))
        lines = (" ".join(COMMENT.sub("", line).split()) for line in joined.splitlines())
        found += [line for line in lines if line]
    return found


def elsewhere(command: str) -> str | None:
    """The test that runs a command, or why none can; None for one that runs here."""
    found = [said for table in (RUN_BY, CANNOT) for of, said in table.items() if re.fullmatch(of, command)]
    assert len(found) <= 1, f"{command}: more than one entry: {found}"
    if SUITE.fullmatch(command):
        return "this suite"
    return found[0] if found else None


def here(page: Path) -> list[str]:
    """The commands of a page that run in the clone."""
    return [command for command in commands(page.read_text(encoding="utf-8")) if elsewhere(command) is None]


def test_commands_are_found() -> None:
    first = "```bash\na --b '#1'    # said\n# alone\nc \\\n    d | \\\n    e\n```\n"
    text = f"{first}```python\nx\n```\n1. y\n   ```bash\n   f\n   ```\n"
    assert commands(text) == ["a --b '#1'", "c d | e", "f"]
    assert commands("```bash\na |\n  b\n```\n") == ["a | b"]
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert len(BLOCK.findall(text)) == len(re.findall(r"```(?:bash|sh|shell|console)\b", text)), page


def test_tests_that_run_a_command_exist() -> None:
    for name in sorted(set(RUN_BY.values())):
        file, _, function = name.partition("::")
        assert re.search(rf"^def {function}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE), name
    ci = (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert re.search(r"^uv run --group services pytest --long$", ci, re.MULTILINE), "CI runs these tests"


def test_every_entry_is_of_a_command() -> None:
    """And the list of what cannot run here stays short."""
    every = [command for page in PAGES for command in commands(page.read_text(encoding="utf-8"))]
    for command in every:
        elsewhere(command)
    patterns = [*RUN_BY, *CANNOT, *map(re.escape, STATUSES)]
    assert [of for of in patterns if not any(re.fullmatch(of, command) for command in every)] == []
    assert len(CANNOT) <= 5
    assert any(here(page) for page in PAGES)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A fresh clone with small sizes, in which the first command of the README ran; and the environment."""
    home = tmp_path_factory.mktemp("docs")
    for name, text in (("uv", UV), ("pip", PIP)):
        path = home / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "PREFECT_", "GIT_"))}
    people = {f"GIT_{role}_{what}": "t@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    paths = os.pathsep.join([str(home / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = kept | people | {"PATH": paths, "PREFECT_HOME": str(home / "prefect")}
    _commit(home / "source", environment)
    for words in (("--bare", "source", "origin"), ("origin", "checkout")):
        subprocess.run(["git", "clone", "--quiet", *words], cwd=home, env=environment, check=True)
    checkout = home / "checkout"
    typed(commands((ROOT / "README.md").read_text(encoding="utf-8"))[0], checkout, environment)
    typed("python -m flows.tracking sync", checkout, environment)  # what a user waits for some seconds
    return checkout, environment


def _commit(folder: Path, environment: dict[str, str]) -> None:
    """A repository with the files of this one, changes included, and small sizes."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    tree = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    for key, value in SMALL.items():
        *above, last = key.split(".")
        section = tree
        for part in above:
            section = section[part]
        section[last] = value
    (folder / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    for words in (("init", "--quiet", "--initial-branch", "main"), ("add", "."), ("commit", "--quiet", "-m", "small")):
        subprocess.run(["git", *words], cwd=folder, env=environment, check=True)


def typed(command: str, checkout: Path, environment: dict[str, str]) -> str:
    """Run a command as it is typed into a shell; its output. It must end with a status that is allowed."""
    done = subprocess.run(
        ["bash", "-c", f"set -eo pipefail; {own(command, checkout)}"],
        cwd=checkout,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode in STATUSES.get(command, {0}), f"{command} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout


def own(command: str, checkout: Path) -> str:
    """The command with the test's own paths, ports and numbers."""
    for pattern, instead in OWN.items():
        command = re.sub(pattern, instead.format(checkout.parent) if "{}" in instead else instead, command)
    return re.sub(r"(?<=[: ])(4200|500[012])\b", lambda port: PORTS[port[1]], command)


@contextmanager
def serving(command: str, checkout: Path, environment: dict[str, str], *, url: str = "") -> Iterator[None]:
    """A server, started as it is typed, that answers at `url`, or says that it has started."""
    file = checkout.parent / f"server-{time.monotonic_ns()}.log"

    def said() -> str:
        return file.read_text(encoding="utf-8")

    with file.open("wb") as log:
        process = subprocess.Popen(
            ["bash", "-c", own(command, checkout)],
            cwd=checkout,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            until(lambda: process.poll() is not None or (answers(url) if url else "started!" in said()), what=command)
            assert process.poll() is None, said()
            yield
        finally:
            end_group(process)


@pytest.fixture(scope="module")
def prefect(clone: tuple[Path, dict[str, str]]) -> Iterator[str]:
    """The address of a server that has the deployments, and a worker: all as the README has them typed."""
    checkout, environment = clone
    words = ("prefect server", "PREFECT_API_URL", "prefect worker", "deploy --all")
    lines = commands((ROOT / "README.md").read_text(encoding="utf-8"))
    server, address, worker, deploy = (next(line for line in lines if word in line) for word in words)
    api = own(address.partition("=")[2], checkout)
    with ExitStack() as servers:
        servers.enter_context(serving(server, *clone, url=f"{api}/health"))
        servers.enter_context(serving(f"{address}\n{worker}", *clone))
        typed(f"{address}\n{deploy}", checkout, environment)
        yield api


def ended(api: str, said: str) -> str:
    """The name of the state that the flow run ends in which `prefect deployment run` says it created."""
    (run,) = re.findall(r"UUID: (\S+)", said)

    def state() -> str:
        with urllib.request.urlopen(f"{api}/flow_runs/{run}", timeout=90) as reply:
            name = str(json.load(reply)["state_name"])
        return name if name in ("Completed", "Failed", "Cancelled", "Crashed") else ""

    return str(until(state, seconds=1200, what=f"the end of the flow run {run}"))


@pytest.mark.extended
@pytest.mark.parametrize("page", [page for page in PAGES if here(page)], ids=lambda page: page.name)
def test_the_commands_of_a_page_run_as_typed(
    clone: tuple[Path, dict[str, str]], page: Path, request: pytest.FixtureRequest
) -> None:
    assigned: list[str] = []
    with ExitStack() as servers:
        for command in here(page):
            for group in re.findall(r"--group (\w+)", command):
                pytest.importorskip(GROUPS[group], reason=f"a package of the group {group}")
            line = "\n".join([*assigned, command])
            if ASSIGNMENT.fullmatch(command):
                assigned.append(command)
            elif SERVE.fullmatch(command):
                servers.close()
                (port,) = re.findall(r"--port (\d+)", own(command, clone[0]))
                servers.enter_context(serving(line, *clone, url=f"http://127.0.0.1:{port}/health"))
            elif DEPLOYED.fullmatch(command):
                api = request.getfixturevalue("prefect")
                said = typed(f"export PREFECT_API_URL={api}\n{line}", *clone)
                assert ended(api, said) == "Completed", command
            else:
                said = typed(line, *clone)
                assert not re.fullmatch(r"curl [^|]*", command) or '"predictions"' in said, said


@pytest.mark.extended
def test_the_python_of_the_readme_runs(clone: tuple[Path, dict[str, str]]) -> None:
    checkout, environment = clone
    (code,) = PYTHON.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    subprocess.run([sys.executable, "-c", code], cwd=checkout, env=environment, check=True)
    assert (checkout / "threes.png").stat().st_size > 0
