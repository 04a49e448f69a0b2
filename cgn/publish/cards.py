"""Cards of a finished run, in Hugging Face's format: README.md of a repository of models, or of a data set.

Every number comes from the run's own folders, with its 95 % interval; what the data are follows from the parameters
with which prepare made them. Nothing here loads a network.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cgn.core.errors import ArtifactError
from cgn.core.facts import read_facts, refuse_foreign
from cgn.core.files import read_object
from cgn.core.outputs import DEFINITION
from cgn.data.shards import read_manifest
from cgn.evaluation.gate import FILE as VERDICT
from cgn.evaluation.gate import TEXT
from cgn.evaluation.suite_tables import markdown_table

MODEL = "model.safetensors"
PAPER = "Sauer and Geiger, Counterfactual Generative Networks, ICLR 2021 (arXiv 2101.06046)"
GENERATOR = {
    "mnist": "The generator was trained against discriminators that saw such images.",
    "imagenet": "The generator began as three copies of a BigGAN that was pretrained on such images; its own training "
    "reads none.",
}
"""Track -> how its generator learned."""
ARMS = {
    "original": "The classifier was trained on original images only.",
    "gan": "The classifier was trained on factual images of the generator only.",
    "counterfactual": "The classifier was trained on counterfactual images of the generator only.",
    "original_counterfactual": "The classifier was trained on original images and on counterfactual images.",
    "baseline": "The classifier was trained on original images only.",
    "ensemble": "The classifier has a head for each of shape, texture and background. It was trained on original "
    "images and on counterfactual ones, each head by its own cue's label.",
}
"""Arm -> what its classifier learned from."""
SPLITS = {
    "counterfactual": "In `counterfactual` the three labels are drawn independently.",
    "factual": "In `factual` they are equal.",
}
MADE_BY = "This repository was written by the project's own pipeline, not by the paper's authors."


@dataclass(frozen=True, kw_only=True)
class DataOrigin:
    """What a variant's images are, and under which terms."""

    words: str
    license: str
    terms: str
    limits: str


DRAWN = DataOrigin(
    words="The images show a synthetic world of nine classes that this project draws by formulas: silhouettes with a "
    "texture before a background. No photograph is among them.",
    license="mit",
    terms="The images are drawn by code under the MIT License, and so are the weights that learned from them.",
    limits="It knows nine classes of drawn shapes and nothing of photographs. It shows an effect, no more.",
)
PHOTOGRAPHS = DataOrigin(
    words="The images are ImageNet's photographs, from a folder of the user.",
    license="other",
    terms="ImageNet's terms of access (research, not commercial) bind whoever uses what was learned from its images.",
    limits="It answers with one of ImageNet's classes, whatever it is shown.",
)
SMALL_DIGITS = DataOrigin(
    words="The images are handwritten digits that come with scikit-learn (a copy of the test set of UCI's Optical "
    "Recognition of Handwritten Digits), enlarged and colored by this project.",
    license="bsd-3-clause",
    terms="The digits are distributed with scikit-learn (BSD-3-Clause).",
    limits="It reads single digits of this size and coloring. It is a small benchmark of shortcuts, no reader of text.",
)
MNIST = DataOrigin(
    words="The images are MNIST's handwritten digits, colored by this project.",
    license="other",
    terms="MNIST's own terms apply to what was made from its digits.",
    limits="It reads single digits of this size and coloring. It is a benchmark of shortcuts, no reader of text.",
)


@dataclass(frozen=True, kw_only=True)
class RunFolders:
    """The folders of one variant's finished run, `root`/<stage>."""

    root: Path
    track: str
    variant: str

    @property
    def target(self) -> str:
        """track/variant."""
        return f"{self.track}/{self.variant}"

    @property
    def definition(self) -> Mapping[str, Any]:
        """What prepare's folder says of its parameters and seed. Raises ArtifactError where it does not, or foreign."""
        path = self.root / "prepare" / DEFINITION
        found = read_object(path)
        refuse_foreign(found, source=path, track=self.track, variant=self.variant)
        return found

    @property
    def origin(self) -> DataOrigin:
        """What the images are."""
        params = self.definition["params"]
        if self.track == "imagenet":
            return DRAWN if params.get("world") else PHOTOGRAPHS
        return SMALL_DIGITS if params.get("digits") == "scikit-learn" else MNIST

    @property
    def verdict(self) -> Mapping[str, Any]:
        """What the gate said. Raises ArtifactError where it did not run."""
        return read_object(self.root / "gate" / VERDICT)

    @property
    def classifier(self) -> Path:
        """The folder of the classifier that the gate looked at."""
        return self.root / "train_classifier" / str(self.verdict["classifier"])

    def facts(self, folder: Path) -> Mapping[str, Any]:
        """Of a model file. Raises ArtifactError for one of another variant."""
        return read_facts(folder / MODEL, track=self.track, variant=self.variant)


def config(run: RunFolders) -> dict[str, Any]:
    """config.json of a repository of models: what each file holds, as the file itself says."""
    return {
        "library_name": "cgn",
        "track": run.track,
        "variant": run.variant,
        "seed": run.definition["seed"],
        "classifier": dict(run.facts(run.classifier)),
        "generator": dict(run.facts(run.root / "train_cgn")),
        "gate": dict(run.verdict),
    }


def model_card(run: RunFolders) -> str:
    """README.md of a repository with the gated classifier and the generator."""
    from huggingface_hub import EvalResult, ModelCardData

    facts, origin = run.facts(run.classifier), run.origin
    name = f"cgn-{run.track}-{run.variant}"
    metric, value, table = _figures(run)
    data = ModelCardData(
        license=origin.license,
        library_name="cgn",
        pipeline_tag="image-classification",
        tags=["counterfactual", "generative", "robustness", run.track],
        model_name=name,
        eval_results=[
            EvalResult(
                task_type="image-classification",
                dataset_type=name,
                dataset_name=run.target,
                metric_type="accuracy",
                metric_name=metric,
                metric_value=value,
            )
        ],
    )
    verdict = (run.root / "gate" / TEXT).read_text(encoding="utf-8").replace("# ", "", 1)
    parts = {
        f"# {name}": f"A classifier (`{facts['arm']}`) and the counterfactual generative network behind its training "
        f"images, trained on {run.target}, seed {run.definition['seed']}. The method is that of {PAPER}. {MADE_BY}",
        "## Training data": f"{origin.words} {GENERATOR[run.track]} {ARMS[str(facts['arm'])]}",
        "## Figures": f"{table}\n95 % intervals are for the finite test set. They belong to this one trained network; "
        "another seed trains another.",
        "## Verdict of the gate": verdict,
        "## Limits": origin.limits,
        "## License": origin.terms,
        "## How to load": "```python\nfrom cgn import load_classifier, load_generator\n\n"
        'classifier = load_classifier("classifier")  # folders of this repository\n'
        'print(classifier.classify(["image.png"])[0].name)\n'
        'generator = load_generator("generator")\n'
        'generator.draw(shape=[3], texture=[7], background=[0]).save("sheet.png")\n```\n\n'
        "`config.json` names classes, heads and sizes. No file is a pickle.",
    }
    return _card(data, parts)


def dataset_card(run: RunFolders) -> str:
    """README.md of a repository with the generated shards."""
    from huggingface_hub import DatasetCardData

    manifest, origin = read_manifest(run.root / "generate"), run.origin
    refuse_foreign(manifest.facts, source=run.root / "generate", track=run.track, variant=run.variant)
    total = sum(manifest.splits.values())
    sizes = {"n<1K": 1_000, "1K<n<10K": 10_000, "10K<n<100K": 100_000, "100K<n<1M": 1_000_000, "1M<n<10M": 10_000_000}
    files = [{"split": split, "path": f"{split}-*.tar"} for split in manifest.splits]
    data = DatasetCardData(
        license=origin.license,
        task_categories=["image-classification"],
        size_categories=[next(name for name, most in sizes.items() if total < most)],
        tags=["counterfactual", "synthetic", "webdataset"],
        pretty_name=f"Counterfactual images of {run.target}",
        configs=[{"config_name": "default", "data_files": files}],
    )
    rows = [[split, f"{images:,}"] for split, images in manifest.splits.items()]
    meaning = " ".join(SPLITS[split] for split in manifest.splits)
    parts = {
        f"# Counterfactual images of {run.target}": "Images that a counterfactual generative network drew: each has a "
        f"label of its own for shape, texture and background. The method is that of {PAPER}. {MADE_BY}",
        "## Content": f"{markdown_table(['split', 'images'], rows)}\n{meaning} "
        "The images are generated: they are for training, not for tests.",
        "## Format": "WebDataset: tar files of `KEY.png` and `KEY.json`, whose `shape`, `texture` and `background` are "
        f"class numbers, 0 to {int(manifest.facts.get('classes', 10)) - 1}. `manifest.json` has the SHA-256 of every "
        "file, and `croissant.json` describes all of it in the Croissant format.",
        "## Source": f"{origin.words} {GENERATOR[run.track]}",
        "## Limits": "Masks and textures are as good as the network: some images show no clear object, and a label "
        "says what was asked for, not what a person would see.",
        "## License": origin.terms,
        "## How to load": "```python\nfrom cgn import read_shards\n\n"
        f'for image, labels in read_shards(".", split="{next(iter(manifest.splits))}"):  # folder of this repository\n'
        '    print(image.shape, labels["shape"], labels["texture"], labels["background"])\n```',
    }
    return _card(data, parts)


def _figures(run: RunFolders) -> tuple[str, float, str]:
    """The metric of the card's header, its value, and a table of all classifiers or heads."""
    folder, name = run.root / "evaluate", str(run.verdict["classifier"])
    try:
        if run.track == "mnist":
            accuracies = read_object(folder / "accuracy.json")
            rows = [[arm, _shown(of["test_random"], "accuracy")] for arm, of in accuracies.items()]
            metric, value = "accuracy on random looks", accuracies[name]["test_random"]["accuracy"]
            return metric, value, markdown_table(["trained on", metric], rows)
        numbers = read_object(folder / "results.json")["classifiers"]
        rows = [[one, head, *_row(of)] for one, heads in numbers.items() for head, of in heads.items()]
        heads = numbers[name]
        head = "avg" if "avg" in heads else next(iter(heads))
        columns = ["classifier", "head", "top-1", "shape bias", "background gap"]
        return f"top-1 of the head {head}", heads[head]["clean"]["top_1"]["value"], markdown_table(columns, rows)
    except (KeyError, TypeError, AttributeError, StopIteration) as error:
        raise ArtifactError(f"{folder} lacks the figures of {name} ({error}): run the stage evaluate again") from None


def _row(of: Mapping[str, Any]) -> list[str]:
    conflict, gap = of.get("cue_conflict", {}), of.get("in9", {}).get("bg_gap")
    bias = "undecided" if "undecided" in conflict else _shown(conflict.get("shape_bias"))
    if "shape_bias" in conflict:
        bias += f"; {conflict['decided']} of {conflict['conflicts']} decided"
    return [_shown(of.get("clean", {}).get("top_1")), bias, "undecided" if gap and "undecided" in gap else _shown(gap)]


def _shown(of: Mapping[str, Any] | None, name: str = "value") -> str:
    return f"{100 * of[name]:.1f} % ({100 * of['low']:.1f} to {100 * of['high']:.1f})" if of else ""


def _card(data: Any, parts: Mapping[str, str]) -> str:
    body = "\n\n".join(f"{title}\n\n{words.strip()}" for title, words in parts.items())
    return f"---\n{data.to_yaml()}\n---\n\n{body}\n"
