"""A Ray cluster of nodes of one CPU each, in processes of its own: python -m tests.support.ray_cluster NODES

It prints one line of JSON, the address and the process ids of each node, and ends when its standard input does.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SECONDS = 300.0

LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
"""Environment of the cluster, and of what connects to it: with it Ray listens on 127.0.0.1 alone."""


@dataclass(frozen=True, kw_only=True)
class RayCluster:
    """`nodes`: the process ids of each node's servers, the head's first."""

    address: str
    nodes: list[list[int]]


@contextmanager
def ray_cluster(nodes: int = 2) -> Iterator[RayCluster]:
    """Start a cluster; end all of its processes."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        words = [sys.executable, "-m", "tests.support.ray_cluster", str(nodes)]
        environment = os.environ | LOOPBACK | {"RAY_TMPDIR": folder}
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            words, cwd=ROOT, env=environment, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield RayCluster(**json.loads(process.stdout.readline()))
        finally:
            process.stdin.close()
            process.stdout.close()
            process.wait(timeout=60)


def main(nodes: int) -> None:
    """Serve until standard input ends."""
    from ray._private import services
    from ray.cluster_utils import Cluster

    services.get_node = _patient(services.get_node)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    started = [cluster.head_node, *(cluster.add_node(num_cpus=1) for _ in range(nodes - 1))]
    servers = [[one.process.pid for many in node.all_processes.values() for one in many] for node in started]
    print(json.dumps({"address": cluster.address, "nodes": servers}), flush=True)
    sys.stdin.read()
    cluster.shutdown()  # type: ignore[no-untyped-call]


def _patient(get_node: Callable[..., Any]) -> Callable[..., Any]:
    """Ray gives up a node that has not started after 30 s; a busy machine needs longer."""

    def found(*given: Any) -> Any:
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                return get_node(*given)
            except RuntimeError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    return found


if __name__ == "__main__":
    main(int(sys.argv[1]))
