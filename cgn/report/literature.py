"""Where published numbers come from: the paper and its replication, by the names under which tables cite them."""

from collections.abc import Iterable

from cgn.report.page import Html, element, join, text

PAPER = "Sauer and Geiger, ICLR 2021"
REPLICATION = "Bagad et al., ReScience C 2022"
LINKS = {PAPER: "https://arxiv.org/abs/2101.06046", REPLICATION: "https://zenodo.org/record/6574635"}


def cited(sources: Iterable[str]) -> Html:
    """Links to the sources, each once, in their order."""
    return join([element("a", text(source), href=LINKS[source]) for source in dict.fromkeys(sources)], between="; ")


def cited_in_markdown(sources: Iterable[str]) -> str:
    """The same in Markdown."""
    return ", ".join(f"[{source}]({LINKS[source]})" for source in dict.fromkeys(sources))
