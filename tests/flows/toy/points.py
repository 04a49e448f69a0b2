"""The stages of a toy sweep: a training of five steps that continues, an evaluation with real decisions, a report.

Every step of the training is a line of $RAN. $RAN.slow holds the seconds of a step, $RAN.fail a seed that fails.
The accuracy falls with the distance of the learning rate from 0.1, and depends on the seed.
"""

import json
import math
import os
import sys
import time
from pathlib import Path

import yaml

STEPS, IMAGES = 5, 200


def train(out: Path, *, seed: int, rate: float) -> None:
    """Five steps; those that are done are in a file beside the output."""
    ran = Path(os.environ["RAN"])
    slow, fail = (ran.with_name(ran.name + suffix) for suffix in (".slow", ".fail"))
    if fail.exists() and fail.read_text() == str(seed):
        sys.exit("error: the toy was asked to fail")
    done = out.with_name("train.partial")
    done.parent.mkdir(parents=True, exist_ok=True)
    for step in range(int(done.read_text()) if done.exists() else 0, STEPS):
        time.sleep(float(slow.read_text()) if slow.exists() else 0)
        with ran.open("a") as file:
            file.write(f"seed {seed} rate {rate:g} step {step}\n")
        done.write_text(str(step + 1))
    out.mkdir()
    (out / "rate.txt").write_text(str(rate))
    done.unlink()


def evaluate(out: Path, *, seed: int) -> None:
    """Decisions of one arm on randomised images, and their share of right ones as the metric."""
    from tests.support.digit_predictions import write_evaluation

    rate = float((out.with_name("train") / "rate.txt").read_text())
    right = round(IMAGES * (0.7 - 0.1 * abs(math.log10(rate) + 1))) + seed
    write_evaluation(out, seed=seed, right=right, images=IMAGES)
    log = out.with_name("evaluate.log")
    log.mkdir(exist_ok=True)
    values = {"accuracy": {"counterfactual": {"test_random": right / IMAGES}}}
    (log / "metrics.json").write_text(json.dumps(values))


def main(verb: str, out: Path) -> None:
    """Run a stage."""
    variant = yaml.safe_load(Path("params.yaml").read_text())["mnist"]["digits"]
    if verb == "train":
        train(out, seed=variant["seed"], rate=variant["train_classifier"].get("learning_rate", 0.1))
    elif verb == "evaluate":
        evaluate(out, seed=variant["seed"])
    else:
        out.mkdir()
        (out / "index.html").write_text("<p>")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
