"""A stage of the toy project: `flows.stage` around a front door that only counts and waits.

It writes what the real front door writes: run.json before the first step, the output through `<out>.partial`, metrics
beside it. `params.yaml` says how many steps, how long each takes, and whether the last one fails.
"""

import argparse
import os
import struct
import sys
import time
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import yaml

from cgn.core.errors import TrainingError
from cgn.core.files import user_path, write_json
from cgn.core.metrics import Fanout, Files
from flows.stage import main
from flows.untracked import UntrackedRun


def toy(argv: Sequence[str], run: UntrackedRun) -> None:
    """Count to `steps`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("verb")
    parser.add_argument("--in", dest="inputs", action="append", default=[])
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(argv)
    params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))[given.verb]
    log, partial = (given.out.with_name(given.out.name + suffix) for suffix in (".log", ".partial"))
    facts = {"name": given.out.relative_to("runs").as_posix(), "verb": given.verb, "track": "mnist", "variant": "toy"}
    facts |= {"output": "data", "command": " ".join(argv), "about": "count"}
    run.begin(facts | {"inputs": {"data": given.inputs}}, out=given.out, log=log)
    sink = Fanout([Files(log), run])
    note = {"params": {"nested": params}, "seed": 7, "options": {}, "versions": {"toy": "1"}, "git_revision": "abc+"}
    write_json(log / "run.json", note)
    sink.rewind(-1)
    with Path("ran.txt").open("a", encoding="utf-8") as file:
        file.write(f"{given.out} {datetime.now(UTC).isoformat()} {os.environ.get('CGN_CORES')}\n")
    partial.mkdir(parents=True, exist_ok=True)
    print(f"{user_path('data')} is the user's, from {Path.cwd()}", flush=True)
    for step in range(1, params["steps"] + 1):
        print(f"{given.verb} step {step}", flush=True)
        sink.log({"loss/toy": 1 / step}, step=step)
        time.sleep(params["seconds"])
    if params["fail"]:
        raise TrainingError("the toy was asked to fail")
    (partial / "sheets").mkdir(exist_ok=True)
    (partial / "sheets" / "0001.png").write_bytes(pixel())
    sink.picture(partial / "sheets" / "0001.png")
    (partial / "text.txt").write_text(f"{given.verb}\n", encoding="utf-8")
    partial.replace(given.out)
    sink.summary({"accuracy/toy/test": 0.5})


def pixel() -> bytes:
    """The smallest PNG."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head, data = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0), zlib.compress(b"\0\xff")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], front_door=toy))
