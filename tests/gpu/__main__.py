"""All that only a GPU can show, in one command: python -m tests.gpu

    --device cuda --sizes full --minutes 11 --seconds 4 --out results/gpu

First whether the device computes what the CPU computes, then the verbs of the digits from prepare to evaluate, then
how fast it is. The results, one row a case, are in OUT/DATE-CARD.json and .md; cases for which time does not suffice
are listed as not measured. Weights are random, nothing is downloaded, and neither Prefect, DVC nor MLflow is needed.
The exit status is 1 if a difference is over its tolerance or a case failed. `--sizes small --device cpu` tries the
command.
"""

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from cgn.core.devices import limit_threads, machine
from cgn.core.files import write_json
from tests.benchmarks.bench_generate import write_model
from tests.gpu import equality, speed
from tests.gpu.measure import Row

SIZES: dict[str, dict[str, Any]] = {
    "full": {
        "net": "biggan-deep-256",
        "equality": {"images": 2, "pixels": 224},
        "speed": {"generate": 64, "train_cgn": 8, "train_classifier": 128, "corrupt": 64, "pixels": 224},
        "updates": 300,
    },
    "small": {
        "net": "tiny",
        "equality": {"images": 2, "pixels": 96},
        "speed": {"generate": 4, "train_cgn": 1, "train_classifier": 4, "corrupt": 2, "pixels": 96},
        "updates": 4,
    },
}
ROOT = Path(__file__).parents[2]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print each row, write the results."""
    options = _options(argv)
    limit_threads()
    began, device, sizes = time.monotonic(), torch.device(options.device), SIZES[options.sizes]
    torch.backends.cudnn.allow_tf32 = False  # torch's default is to round float32 convolutions
    card = torch.cuda.get_device_name() if device.type == "cuda" else machine()["cpu"]
    found: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        write_model(Path(scratch), net=sizes["net"])
        for row in _rows(Path(scratch), device=device, sizes=sizes, options=options, began=began):
            print(_line(row), flush=True)
            found.append(row)
    about = {
        "card": card,
        "machine": machine(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "command": f"python -m tests.gpu --device {options.device} --sizes {options.sizes}",
        "seconds": round(time.monotonic() - began),
    }
    write(options.out, found, about=about)
    return 0 if all(row.passed for row in found) else 1


def _rows(
    folder: Path, *, device: torch.device, sizes: dict[str, Any], options: argparse.Namespace, began: float
) -> Iterator[Row]:
    yield from equality.rows(folder, device=device, **sizes["equality"])
    yield from verbs(device=device, updates=sizes["updates"])
    cases = speed.cases(folder, device=device, sizes=sizes["speed"], seconds=options.seconds)
    for name, case in cases.items():
        if time.monotonic() - began > 60 * options.minutes:
            yield Row(part="speed", case=name, value=None, unit="images/s", note="not measured: time is up")
        else:
            yield case()


def verbs(*, device: torch.device, updates: int) -> Iterator[Row]:
    """The digits' verbs as plain commands, their training cut short; seconds of each."""
    with tempfile.TemporaryDirectory() as scratch:
        runs, params = Path(scratch), Path(scratch) / "params.yaml"
        changed: dict[str, dict[str, Any]] = {
            "train_cgn": {"updates": updates, "accelerator": device.type},
            "generate": {"factual_images": 64, "counterfactual_images": 64},
            "train_classifier": {"epochs": 1, "accelerator": device.type},
        }
        params.write_text(json.dumps(_shortened(changed)))
        (runs / "assets").mkdir()  # nothing is fetched for scikit-learn's digits
        data, model, images, arm = (str(runs / name) for name in ("data", "model", "images", "original"))
        for verb, *paths in (
            ("prepare", "--assets", str(runs / "assets"), "--data", data),
            ("train_cgn", "--assets", str(runs / "assets"), "--data", data, "--model", model),
            ("generate", "--model", model, "--images", images),
            (
                "train_classifier",
                "--arm",
                "original_counterfactual",
                "--data",
                data,
                "--images",
                images,
                "--classifier",
                arm,
            ),
            ("evaluate", "--data", data, "--classifier", arm, "--decisions", str(runs / "predictions")),
        ):
            started = time.monotonic()
            command = [sys.executable, "-m", "cgn", verb, "mnist/digits", "--params", str(params), *paths]
            ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            failed = "" if ended.returncode == 0 else f"failed: {ended.stderr.strip().splitlines()[-1]}"
            value = None if failed else time.monotonic() - started
            yield Row(part="verbs", case=f"{verb} mnist/digits", value=value, unit="s", note=failed)
            if failed:
                return


def _shortened(changed: dict[str, dict[str, Any]]) -> dict[str, Any]:
    from ruamel.yaml import YAML

    values = YAML(typ="safe").load(ROOT / "params.yaml")
    digits = values["mnist"]["digits"]
    for verb, sections in changed.items():
        digits[verb] |= sections
    return {"active": {"mnist": ["digits"], "imagenet": []}, "mnist": {"digits": digits}, "imagenet": {}}


def write(folder: Path, rows: Sequence[Row], *, about: dict[str, Any]) -> None:
    """DATE-CARD.json and .md."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{datetime.date.today().isoformat()}-{'-'.join(about['card'].split())}".replace("/", "-")
    write_json(folder / f"{name}.json", {**about, "rows": [asdict(row) for row in rows]})
    lines = [f"# {about['card']}", "", f"`{about['command']}`, torch {about['torch']}, {about['seconds']} s", ""]
    lines += [
        "| part | case | value | unit | allowed | peak, GiB | warm-up, s | note |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [f"| {' | '.join(_cells(row))} |" for row in rows]
    (folder / f"{name}.md").write_text("\n".join(lines) + "\n")
    print(f"results: {folder / name}.json and .md")


def _cells(row: Row) -> list[str]:
    numbers = (row.value, row.allowed, row.gib, row.warm_seconds)
    value, allowed, gib, warm = ("" if number is None else f"{number:.4g}" for number in numbers)
    return [
        row.part,
        row.case,
        value,
        row.unit,
        allowed,
        gib,
        warm,
        row.note if row.passed else row.note or "too large",
    ]


def _line(row: Row) -> str:
    _, case, value, unit, allowed, _, _, note = _cells(row)
    return f"{case:46}{value:>10} {unit}" + (f" (allowed {allowed})" if allowed else "") + (f"  {note}" if note else "")


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cpu", "cuda"])
    parser.add_argument("--sizes", default="full", choices=list(SIZES))
    parser.add_argument("--minutes", type=float, default=11.0, help="no further case starts after so long")
    parser.add_argument("--seconds", type=float, default=4.0, help="a case, after its warm-up")
    parser.add_argument("--out", type=Path, default=Path("results/gpu"))
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
