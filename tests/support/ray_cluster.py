"""A Ray cluster of nodes of one CPU each, in processes of its own: python -m tests.support.ray_cluster NODES

It prints one line of JSON, the address and the process ids of each node, and ends when its standard input does.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
STARTS = 4

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
    from ray.cluster_utils import Cluster

    cluster = _started(lambda: Cluster(True, head_node_args={"num_cpus": 1, "include_dashboard": False}))
    started = [cluster.head_node, *(_started(lambda: cluster.add_node(num_cpus=1)) for _ in range(nodes - 1))]
    servers = [[one.process.pid for many in node.all_processes.values() for one in many] for node in started]
    print(json.dumps({"address": cluster.address, "nodes": servers}), flush=True)
    sys.stdin.read()
    cluster.shutdown()


def _started(start: Callable[[], Any]) -> Any:
    """A node ends where its helpers are not up within 15 s, as on a busy machine; Ray notices after 30."""
    for _ in range(STARTS - 1):
        with suppress(Exception):
            return start()
    return start()


if __name__ == "__main__":
    main(int(sys.argv[1]))
