"""Train the miniature's nets from scratch: BigGAN-deep, segmenter, features, and a report on them.

    python -m cgn.miniature.pretrain --out runs/pretraining

Decided here: this is no stage. Its results ship with the package, as the published nets are downloaded: whoever runs
the track need not run it. One CPU core is enough, so no other device is offered. A killed run continues from its last
checkpoint when the same command is given again.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from cgn.core.errors import CgnError
from cgn.core.files import read_json, write_json
from cgn.core.metrics import Files
from cgn.miniature import nets
from cgn.miniature import pretraining_adversarial as adversarial
from cgn.miniature import pretraining_report as report
from cgn.miniature import pretraining_supervised as supervised
from cgn.miniature.pretraining_configs import Adversarial, Features, Segmenter

Recipe = Adversarial | Segmenter | Features
RECIPES: dict[str, Recipe] = {"features": Features(), "segmenter": Segmenter(), "biggan": Adversarial()}
"""In the order in which they are trained: the features judge the rest."""
RECIPE = "recipe.json"


def pretrain(name: str, recipe: Recipe, out: Path, *, seed: int) -> Path:
    """Train one net in `out/<name>`, from its checkpoint where there is one; write and return `out/<name>.safetensors`.

    Raises TrainingError when a loss is not a number, ArtifactError for a checkpoint of another training.
    """
    made_by = f"python -m cgn.miniature.pretrain --net {name} --seed {seed} --updates {recipe.updates}"
    folder, path = out / name, out / f"{name}.safetensors"
    definition = json.loads(json.dumps({"seed": seed, "recipe": asdict(recipe)}))  # as it is read back
    if path.is_file() and (folder / RECIPE).is_file() and read_json(folder / RECIPE) == definition:
        return path
    folder.mkdir(parents=True, exist_ok=True)
    given: dict[str, Any] = {"seed": seed, "sink": Files(folder)}
    match recipe:
        case Adversarial():
            nets.save_biggan(path, adversarial.train(recipe, folder, **given), made_by=made_by)
        case Segmenter():
            net = supervised.train_segmenter(recipe, folder, **given)
            nets.save_saliency_net(path, net, recipe.widths, made_by=made_by)
        case Features():
            nets.save_features(path, supervised.train_features(recipe, folder, **given), recipe.blocks, made_by=made_by)
    write_json(folder / RECIPE, definition)
    return path


def main(argv: Sequence[str]) -> int:
    """The command; what a user can mend is told in one line."""
    parser = argparse.ArgumentParser(prog="python -m cgn.miniature.pretrain", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="where the nets, their checkpoints and the report go")
    parser.add_argument("--net", choices=["all", *RECIPES], default="all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--updates", type=int, help="instead of the recipe's number")
    given = parser.parse_args(argv)
    try:
        for name, recipe in RECIPES.items():
            if given.net in ("all", name):
                chosen = recipe if given.updates is None else replace(recipe, updates=given.updates)
                pretrain(name, chosen, given.out, seed=given.seed)
        report.write(given.out, seed=given.seed)
    except CgnError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
