"""The ImageNet track's model file: three BigGANs and the saliency net in one file, rebuilt from its facts alone."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from cgn.core.checkpoints import save_model
from cgn.core.errors import ArtifactError
from cgn.core.seeding import torch_stream
from cgn.imagenet.generator import Model, biggan_of, build_generator, load_generator, model_facts, saliency_tensors
from cgn.mechanisms import Prior, factual
from cgn.nets.biggan import BigGan, BigGanConfig
from cgn.nets.u2net import U2Net, Widths

BIGGAN_CONFIG = BigGanConfig(
    noise_size=8,
    embedding_size=8,
    classes=3,
    width=4,
    blocks=((True, 4, 4), (True, 4, 2), (True, 2, 1)),
    attention_at=1,
)
WIDTHS = Widths(down=((2, 4),) * 6, up=((2, 4),) * 5)


def saved(folder: Path, **changed: object) -> Model:
    """Save a model whose three mechanisms differ."""
    torch.manual_seed(0)
    saliency = U2Net(WIDTHS)
    generator = build_generator(BigGan(BIGGAN_CONFIG), saliency=saliency)
    for number, role in enumerate((generator.shape, generator.texture, generator.background)):
        with torch.no_grad():
            biggan_of(role).embeddings.weight.add_(number)
    facts = model_facts(variant="toy", table=BIGGAN_CONFIG, widths=WIDTHS)
    tensors = {**generator.state_dict(), **saliency_tensors(saliency)}
    save_model(folder / "model.safetensors", tensors, facts={**facts, **changed})
    return Model(generator=generator.eval(), saliency=saliency, facts=facts)


def test_a_model_comes_back_from_its_file_alone(tmp_path: Path) -> None:
    kept = saved(tmp_path)
    found = load_generator(tmp_path, variant="toy")
    assert found.table == BIGGAN_CONFIG
    assert found.facts["classes"] == 3
    prior = Prior(noise_size=BIGGAN_CONFIG.noise_size, truncation=0.5)
    causes = factual(torch.arange(3), prior=prior, stream=torch_stream(0, "test"))
    with torch.no_grad():
        ours, theirs = found.generator(causes), kept.generator(causes)
    assert ours.mask.equal(theirs.mask)
    assert ours.image.equal(theirs.image)
    assert not ours.foreground.equal(ours.background)
    assert not any(parameter.requires_grad for parameter in found.generator.parameters())
    assert not found.generator.training


def test_another_variant_and_unknown_nets_are_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    with pytest.raises(ArtifactError, match=r"is of variant 'toy', expected 'full'"):
        load_generator(tmp_path, variant="full")
    saved(tmp_path, net={"width": 3})
    with pytest.raises(ArtifactError, match=r"does not say which net it holds"):
        load_generator(tmp_path, variant="toy")
    saved(tmp_path, saliency={"down": [[3, 5]] * 6, "up": [[2, 4]] * 5})
    with pytest.raises(ArtifactError, match=r"does not fit U2Net: of another shape"):
        load_generator(tmp_path, variant="toy")


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("net", []),
        ("net", asdict(BIGGAN_CONFIG) | {"blocks": 3}),
        ("net", asdict(BIGGAN_CONFIG) | {"blocks": [[10**9, 4, 4]]}),
        ("net", asdict(BIGGAN_CONFIG) | {"classes": 10**12}),
        ("net", asdict(BIGGAN_CONFIG) | {"width": 10**6}),
        ("net", asdict(BIGGAN_CONFIG) | {"width": -1}),
        ("saliency", [1, 2]),
        ("saliency", {"down": [[3, 10**9]] * 6, "up": [[2, 4]] * 5}),
        ("saliency", {"down": [], "up": []}),
    ],
)
def test_facts_of_a_wrong_kind_or_size_are_refused(tmp_path: Path, name: str, value: object) -> None:
    saved(tmp_path, **{name: value})
    with pytest.raises(ArtifactError, match=r"model\.safetensors does not (say which nets? it holds|fit)"):
        load_generator(tmp_path, variant="toy")


def test_recomputing_blocks_gives_the_same_gradients() -> None:
    torch.manual_seed(1)
    kept = BigGan(BIGGAN_CONFIG).eval()
    again = BigGan(BIGGAN_CONFIG, recompute="blocks").eval()
    again.load_state_dict(kept.state_dict())
    noise, label = torch.randn(2, 8), torch.tensor([0, 2])
    for net in (kept, again):
        net(noise, label).square().mean().backward()
    grads = [[parameter.grad for parameter in net.parameters()] for net in (kept, again)]
    assert all(a is not None and b is not None and a.equal(b) for a, b in zip(*grads, strict=True))
    assert all(a.equal(b) for a, b in zip(kept.buffers(), again.buffers(), strict=True))
    with pytest.raises(AssertionError, match="spectral norms"):
        again.train()(noise, label)
