"""imagenet evaluate: the cell that fills in what evaluate needs."""

from cgn.config.imagenet.evaluate import Evaluate
from cgn.core.errors import ConfigError
from cgn.corruptions import CORRUPTIONS
from cgn.evaluation.predictions import SUITES
from cgn.imagenet.examination import Examiner
from cgn.stages.evaluate import Parts

COMPARED = (
    *(f"*/{head}/clean/top_1" for head in ("label", "avg")),
    *(f"*/{head}/cue_conflict/{number}" for head in ("label", "avg", "shape") for number in ("shape_bias", "decided")),
    *(f"*/{head}/in9/bg_gap" for head in ("label", "shape_texture")),
    *(f"*/{head}/imagenet_c/mean_error" for head in ("label", "avg")),
)
"""Of the final values (classifier/head/suite/number), those that go to metrics.json; the others are in results.json."""


def parts(params: Evaluate, *, seed: int, variant: str) -> Parts:
    """Parameters of a variant -> what the stage needs. Raises ConfigError for a corruption that does not exist."""
    if unknown := [name for name in params.corruptions if name not in CORRUPTIONS]:
        raise ConfigError(
            f"imagenet.{variant}.evaluate.corruptions has {', '.join(unknown)}; known: {', '.join(CORRUPTIONS)}"
        )
    examiner = Examiner(
        variant=variant,
        seed=seed,
        suites=params.suites,
        corruptions=params.corruptions,
        corruption_images=params.corruption_images,
        batch_size=params.batch_size,
        workers=params.workers,
        accelerator=params.accelerator,
    )
    return Parts(track="imagenet", suites=SUITES, examine=examiner)
