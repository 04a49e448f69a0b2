"""Train the miniature's nets from scratch, or report on them: `python -m cgn.miniature.pretraining STAGE`.

results/imagenet/pretraining/ has the parameters and the pipeline of the four stages. A net is trained on one CPU core
and needs no other device. A killed training continues from its last checkpoint when the same command is run again.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from cgn.core.errors import CgnError
from cgn.core.files import read_json, write_json
from cgn.core.metrics import Files
from cgn.miniature.nets import save_biggan, save_features, save_segmenter
from cgn.miniature.pretraining.biggan import train_biggan
from cgn.miniature.pretraining.config import PretrainingConfig, load_config
from cgn.miniature.pretraining.features import train_features
from cgn.miniature.pretraining.report import DEFINITION, write_report
from cgn.miniature.pretraining.segmenter import train_segmenter
from cgn.training import STATE

NETS = ("features", "segmenter", "biggan")
PARAMS = Path("results/imagenet/pretraining/params.yaml")


def pretrain(name: str, config: PretrainingConfig, *, nets: Path) -> Path:
    """Train one net in `nets/<name>/`, from its checkpoint if there is one; write and return `nets/<name>.safetensors`.

    A training of another definition starts from the beginning. Raises TrainingError when a loss is not finite,
    ArtifactError for a damaged checkpoint.
    """
    folder, path, seed = nets / name, nets / f"{name}.safetensors", config.seed
    definition = json.loads(json.dumps({"seed": seed, "config": asdict(getattr(config, name))}))  # as it is read back
    if not (folder / DEFINITION).is_file() or read_json(folder / DEFINITION) != definition:
        shutil.rmtree(folder, ignore_errors=True)
    elif path.is_file():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / DEFINITION, definition)
    sink, updates = Files(folder), getattr(config, name).updates
    made_by = f"python -m cgn.miniature.pretraining {name}, seed {seed}, {updates} updates"
    if name == "features":
        features = train_features(config.features, folder, seed=seed, sink=sink)
        save_features(path, features, blocks=config.features.blocks, made_by=made_by)
    elif name == "segmenter":
        save_segmenter(path, train_segmenter(config.segmenter, folder, seed=seed, sink=sink), made_by=made_by)
    else:
        save_biggan(path, train_biggan(config.biggan, folder, seed=seed, sink=sink), made_by=made_by)
    (folder / STATE).unlink()  # the net is complete: a new training starts from the beginning
    return path


def main(argv: Sequence[str]) -> int:
    """The command; errors that a user can cause are printed as one line."""
    parser = argparse.ArgumentParser(
        prog="python -m cgn.miniature.pretraining", description=(__doc__ or "").partition(":")[0]
    )
    parser.add_argument(
        "stage", choices=[*NETS, "report", "all"], help="the net to train, or the report; all: all four"
    )
    parser.add_argument("--params", type=Path, default=PARAMS, help="default: %(default)s")
    parser.add_argument(
        "--nets", type=Path, default=Path("runs/pretraining"), help="where nets and their trainings are"
    )
    parser.add_argument("--report", type=Path, help="where the report is written; default: beside the nets")
    arguments = parser.parse_args(argv)
    try:
        config = load_config(arguments.params)
        for name in NETS:
            if arguments.stage in (name, "all"):
                pretrain(name, config, nets=arguments.nets)
        if arguments.stage in ("report", "all"):
            write_report(arguments.nets, arguments.report or arguments.nets, config=config)
    except CgnError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
