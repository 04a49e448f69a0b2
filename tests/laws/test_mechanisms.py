"""Laws of the composer, the mechanisms, the interventions and the losses: true of every input, not of one example."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from cgn.core.seeding import torch_stream
from cgn.losses import binary_entropy, border_hinge, energy_distance, size_hinge, style
from cgn.mechanisms import Prior, compose, counterfactual, factual, rolled
from cgn.mnist.generator import UpsampledConv, build_generator
from cgn.nets.discriminators import ProjectionDiscriminator
from cgn.nets.features import SqueezeFeatures, VggFeatures, vgg_weights

SIZES = {"noise_size": 5, "image_size": 16}
PRIOR = Prior(noise_size=5, tile_size=16)


@pytest.fixture
def stream() -> torch.Generator:
    return torch_stream(0, "test")


def images(stream: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=stream) * 2 - 1


def test_a_full_mask_gives_the_foreground_and_an_empty_one_the_background(stream: torch.Generator) -> None:
    foreground, background = images(stream, 2, 3, 8, 8), images(stream, 2, 3, 8, 8)
    full = torch.ones(2, 1, 8, 8)
    assert compose(full, foreground, background).equal(foreground)
    assert compose(full * 0, foreground, background).equal(background)


def test_exchanging_mask_and_layers_changes_nothing(stream: torch.Generator) -> None:
    mask, f, b = torch.rand((2, 1, 8, 8), generator=stream), images(stream, 2, 3, 8, 8), images(stream, 2, 3, 8, 8)
    torch.testing.assert_close(compose(mask, f, b), compose(1 - mask, b, f))


def test_rolling_is_repeating_and_cropping(stream: torch.Generator) -> None:
    tiles = images(stream, 4, 3, 8, 8)
    offsets = torch.tensor([[0, 0], [3, 5], [8, 1], [8, 8]])
    repeated = tiles.repeat(1, 1, 2, 2)
    cropped = torch.stack([r[:, y : y + 8, x : x + 8] for r, (y, x) in zip(repeated, offsets.tolist(), strict=True)])
    assert rolled(tiles, offsets).equal(cropped)


def test_the_upsampled_convolution_equals_doubling_and_convolving(stream: torch.Generator) -> None:
    layer = UpsampledConv(4, 6).double()
    x = images(stream, 2, 4, 7, 7).double().requires_grad_()
    doubled = functional.conv2d(functional.interpolate(x, scale_factor=2), layer.weight, padding=1)
    torch.testing.assert_close(layer(x), doubled)
    assert layer.eval()(x).equal(doubled)
    layer.train()
    expected = torch.autograd.grad(doubled.square().sum(), [x, layer.weight])
    for found, wanted in zip(torch.autograd.grad(layer(x).square().sum(), [x, layer.weight]), expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_factual_causes_share_label_and_noise(stream: torch.Generator) -> None:
    causes = factual(torch.arange(10), prior=PRIOR, stream=stream)
    for other in (causes.texture, causes.background):
        assert other.label.equal(causes.shape.label)
        assert other.noise.equal(causes.shape.noise)


def test_counterfactuals_of_a_mask_share_it_and_nothing_else(stream: torch.Generator) -> None:
    model = build_generator(shape_width=4, tile_width=4, **SIZES).eval()
    labels = torch.randint(10, (6,), generator=stream)
    causes = counterfactual(
        shape=torch.tensor([3, 7]),
        texture=labels,
        background=labels.flip(0),
        images_per_mask=3,
        prior=PRIOR,
        stream=stream,
    )
    picture = model(causes)
    assert causes.shape.label.tolist() == [3, 3, 3, 7, 7, 7]
    assert picture.mask[0].equal(picture.mask[2])
    assert not picture.mask[0].equal(picture.mask[3])
    assert not picture.foreground[0].equal(picture.foreground[1])


def test_truncated_noise_is_normal_cut_at_two_and_scaled(stream: torch.Generator) -> None:
    noise = Prior(noise_size=50, truncation=0.5).noise(400, stream)
    assert noise.abs().max() <= 1
    # The deviation of a standard normal within two deviations is 0.8796.
    torch.testing.assert_close(noise.std(), torch.tensor(0.8796 / 2), rtol=0.02, atol=0)
    assert not Prior(noise_size=50, truncation=0.0).noise(4, stream).any()


def test_intervening_on_one_mechanism_leaves_the_others_alone(stream: torch.Generator) -> None:
    model = build_generator(shape_width=4, tile_width=4, **SIZES).eval()
    causes = factual(torch.arange(4), prior=PRIOR, stream=stream)
    changed = replace(causes, texture=replace(causes.texture, label=causes.texture.label + 1))
    before, after = model(causes), model(changed)
    assert before.mask.equal(after.mask)
    assert before.background.equal(after.background)
    assert not before.foreground.equal(after.foreground)


def test_masks_and_layers_stay_in_their_ranges(stream: torch.Generator) -> None:
    model = build_generator(shape_width=4, tile_width=4, **SIZES)
    picture = model(factual(torch.arange(10), prior=PRIOR, stream=stream))
    assert picture.mask.shape == (10, 1, 16, 16)
    assert picture.mask.min() >= 1e-4
    assert picture.mask.max() <= 1 - 1e-4
    assert picture.image.shape == (10, 3, 16, 16)
    assert picture.image.abs().max() <= 1


def test_binary_entropy_is_zero_at_the_ends_and_one_bit_in_the_middle() -> None:
    assert binary_entropy(torch.full((1, 1, 4, 4), 0.5)) == 1
    for end in (1e-4, 1 - 1e-4):
        assert binary_entropy(torch.full((1, 1, 4, 4), end)) < 0.002


def test_the_size_hinge_is_the_distance_to_the_interval() -> None:
    masks = torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0]).view(5, 1, 1, 1).expand(5, 1, 4, 4)
    torch.testing.assert_close(size_hinge(masks), torch.tensor([0.1, 0.0, 0.0, 0.0, 0.1]))


def test_the_border_hinge_is_the_mean_of_the_frame_above_what_is_allowed() -> None:
    object_inside = torch.zeros(1, 1, 8, 10)
    object_inside[..., 2:6, 2:8] = 1
    masks = torch.cat([object_inside, 1 - object_inside, torch.full((1, 1, 8, 10), 0.5)])
    torch.testing.assert_close(border_hinge(masks, width=2, largest=0.0), torch.tensor([0.0, 1.0, 0.5]))
    torch.testing.assert_close(border_hinge(masks, width=2, largest=0.6), torch.tensor([0.0, 0.4, 0.0]))


def test_the_energy_distance_is_zero_for_like_draws_and_punishes_sameness(stream: torch.Generator) -> None:
    real = images(stream, 4000, 1, 2, 2)
    like, same = images(stream, 4000, 1, 2, 2), torch.zeros(4000, 1, 2, 2)
    assert abs(energy_distance(like, real, images_per_class=4)) < 0.02
    assert energy_distance(same, real, images_per_class=4) > 0.05
    assert energy_distance(like + 0.5, real, images_per_class=4) > 0.1
    # By hand, 2x2 means 0 and 1 against 1 and 1: across 1, 0, 1, 0; own 1; real 0.
    steps, ones = torch.tensor([0.0, 1.0])[:, None, None, None].expand(2, 1, 2, 2), torch.ones(2, 1, 2, 2)
    assert energy_distance(steps, ones, images_per_class=2) == pytest.approx(2 * 0.5 - 1 - 0)


def test_the_energy_distance_has_gradients_also_of_equal_images() -> None:
    generated = torch.zeros(4, 3, 4, 4, requires_grad=True)
    distance = energy_distance(generated, torch.ones(4, 3, 4, 4), images_per_class=2)
    (gradient,) = torch.autograd.grad(distance, [generated])
    assert gradient.isfinite().all()
    assert gradient.sum() < 0  # down the distance is towards the real images


@pytest.mark.parametrize("make", [VggFeatures, SqueezeFeatures])
def test_style_is_zero_for_equal_batches_and_has_gradients(stream: torch.Generator, make: type[nn.Module]) -> None:
    torch.manual_seed(0)
    net = make().requires_grad_(False)
    image = images(stream, 2, 3, 32, 32).requires_grad_()
    other = images(stream, 2, 3, 32, 32)
    assert style(net(image), net(image), weights=(1, 1, 1, 1)) == 0
    (gradient,) = torch.autograd.grad(style(net(image), net(other), weights=(0.05, 0.1, 0.01, 0)), [image])
    assert gradient.abs().sum() > 0


def test_style_does_not_see_where_things_are(stream: torch.Generator) -> None:
    maps = [torch.rand((2, 3, 4, 4), generator=stream)]
    moved = [maps[0].flip(-1)]
    assert style(maps, moved, weights=[1]) < 1e-3
    assert style(maps, [maps[0] + 1], weights=[1]) > 1


def test_the_projection_discriminator_scores_each_image_independently(stream: torch.Generator) -> None:
    net = ProjectionDiscriminator(classes=10, width=4).eval()
    image, label = images(stream, 4, 3, 16, 16), torch.tensor([0, 3, 3, 9])
    alone = torch.cat([net(image[i : i + 1], label[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(net(image, label), alone)
    assert (net(image, label.roll(1)) - alone)[[0, 1, 3]].abs().min() > 1e-6  # 3 beside 3 stays


def test_vgg_takes_the_last_relu_before_each_pool_of_torchvisions_net() -> None:
    from torchvision.models.vgg import cfgs, make_layers

    torch.manual_seed(0)
    theirs = make_layers(cfgs["D"]).eval()
    ours = VggFeatures()
    ours.load_state_dict(vgg_weights({f"features.{name}": tensor for name, tensor in theirs.state_dict().items()}))
    x = torch.randn(1, 3, 32, 32)
    expected = [theirs[:end](x) for end in (4, 9, 16, 23)]
    for found, wanted in zip(ours(x), expected, strict=True):
        assert found.equal(wanted)
