"""The code of the pretraining's stages; `python -m tests.architecture.pretraining --write` updates its dvc.yaml."""

import re
import sys
from pathlib import Path

from tests.architecture.closure import ROOT, closure

PIPELINE = ROOT / "results" / "imagenet" / "pretraining" / "dvc.yaml"
UP = "../../../"
CODE = re.compile(rf"(?:      - {re.escape(UP)}cgn/.*\n)+")


def code(stage: str) -> list[str]:
    """The files that a stage can reach, as paths from the pipeline's folder; the report also reads the shipped nets."""
    files = closure(f"cgn.miniature.pretraining.{stage}") | closure("cgn.miniature.nets")
    files |= {Path("cgn/miniature/pretraining/__main__.py")}
    if stage == "report":
        files |= {Path("cgn/miniature/weights")}
    return [f"{UP}{file.as_posix()}" for file in sorted(files)]


def rewritten(text: str) -> str:
    """The pipeline with the code paths of every stage replaced."""
    stages = re.split(r"^(?=  \w+:$)", text, flags=re.MULTILINE)
    return stages[0] + "".join(map(_with_code, stages[1:]))


def _with_code(stage: str) -> str:
    lines = "".join(f"      - {path}\n" for path in code(stage.partition(":")[0].strip()))
    return CODE.sub(lines, stage, count=1)


if __name__ == "__main__":
    assert sys.argv[1:] == ["--write"], __doc__
    PIPELINE.write_text(rewritten(PIPELINE.read_text(encoding="utf-8")), encoding="utf-8")
