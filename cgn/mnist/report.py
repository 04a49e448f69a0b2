"""mnist report: the cell that fills in what report needs."""

from cgn.config.mnist import Report
from cgn.mnist.evidence import gather
from cgn.mnist.page import Run, write
from cgn.stages.report import Material, Page, Parts


def parts(params: Report, *, seed: int, variant: str) -> Parts:
    """Parameters of a variant -> what the stage needs."""

    def page(material: Material) -> Page:
        return write(gather(material, variant=variant), run=Run(variant=variant, seed=seed, examples=params.examples))

    return Parts(track="mnist", variant=variant, page=page)
