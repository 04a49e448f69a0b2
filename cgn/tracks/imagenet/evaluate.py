"""imagenet evaluate: the cell that fills in what evaluate needs."""

from cgn.config.imagenet.evaluate import Evaluate
from cgn.core.errors import ConfigError
from cgn.data.corruptions import CORRUPTIONS
from cgn.evaluation.suite_results import SUITES
from cgn.stages.evaluate import Parts
from cgn.tracks.imagenet.examination import Examiner

COMPARED = (
    *("*/label/clean/top_1", "*/avg/clean/top_1"),
    *("*/label/cue_conflict/shape_bias", "*/avg/cue_conflict/shape_bias", "*/shape/cue_conflict/shape_bias"),
    *("*/label/in9/bg_gap", "*/avg/in9/bg_gap", "*/shape_texture/in9/bg_gap"),
    *("*/label/imagenet_c/mean_error", "*/avg/imagenet_c/mean_error"),
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
