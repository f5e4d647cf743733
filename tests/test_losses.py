"""The losses of the restorer against values worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")

from torch.nn import functional as F  # noqa: E402

from models.training import losses  # noqa: E402


def scalar(value: Any) -> float:
    assert value.shape == ()
    return float(value.detach())


def log_sigmoid(x: float) -> float:
    return -math.log(1 + math.exp(-x))


def grey(*rows: list[float]) -> Any:
    """One picture of one channel."""
    return torch.tensor(rows)[None, None]


def test_a_discriminator_that_knows_nothing_loses_ln_2() -> None:
    logits = torch.full((4, 1), 0.7)
    assert scalar(losses.discriminator_loss(logits, logits)) == pytest.approx(math.log(2))
    assert scalar(losses.generator_loss(logits, logits)) == pytest.approx(math.log(2))


def test_the_relativistic_pair_by_hand() -> None:
    """Originals 1 and 3 (mean 2), restored ones 0 and -2 (mean -1): log(D), log(1 - D), D relative to the means."""
    real, fake = torch.tensor([1.0, 3.0]), torch.tensor([0.0, -2.0])
    real_half = -(log_sigmoid(1 + 1) + log_sigmoid(3 + 1)) / 2
    fake_half = -sum(math.log(1 - 1 / (1 + math.exp(-x))) for x in (0 - 2, -2 - 2)) / 2
    assert scalar(losses.discriminator_loss(real, fake)) == pytest.approx((real_half + fake_half) / 2, rel=1e-5)
    real_half = -sum(math.log(1 - 1 / (1 + math.exp(-x))) for x in (1 + 1, 3 + 1)) / 2
    fake_half = -(log_sigmoid(0 - 2) + log_sigmoid(-2 - 2)) / 2
    assert scalar(losses.generator_loss(real, fake)) == pytest.approx((real_half + fake_half) / 2, rel=1e-5)


def test_the_pair_is_binary_cross_entropy_on_relative_logits() -> None:
    torch.manual_seed(0)
    real, fake = torch.randn(3, 1, 5, 4), torch.randn(3, 1, 5, 4)
    bce = F.binary_cross_entropy_with_logits
    halves = (
        bce(real - fake.mean(), torch.ones_like(real)),
        bce(fake - real.mean(), torch.zeros_like(fake)),
    )
    torch.testing.assert_close(losses.discriminator_loss(real, fake), sum(halves) / 2)


def test_exchanging_the_pictures_exchanges_the_players() -> None:
    torch.manual_seed(0)
    real, fake = torch.randn(6), torch.randn(6) - 1
    assert torch.equal(losses.generator_loss(real, fake), losses.discriminator_loss(fake, real))
    assert scalar(losses.generator_loss(real, fake)) > scalar(losses.discriminator_loss(real, fake))


def test_the_players_pull_apart() -> None:
    """The discriminator wants originals' logits up and restored ones' down, the generator the other way round."""
    torch.manual_seed(0)
    real, fake = torch.randn(5, requires_grad=True), torch.randn(5, requires_grad=True)
    up, down = torch.autograd.grad(losses.discriminator_loss(real, fake), (real, fake))
    assert (up < 0).all()
    assert (down > 0).all()
    down, up = torch.autograd.grad(losses.generator_loss(real, fake), (real, fake))
    assert (up < 0).all()
    assert (down > 0).all()


def test_the_generator_learns_from_detached_originals() -> None:
    torch.manual_seed(0)
    real, fake = torch.randn(5, requires_grad=True), torch.randn(5, requires_grad=True)
    (whole,) = torch.autograd.grad(losses.generator_loss(real, fake), fake)
    losses.generator_loss(real.detach(), fake).backward()
    assert torch.equal(fake.grad, whole)
    assert real.grad is None


def test_confident_logits_stay_finite() -> None:
    real, fake = torch.full((3,), 500.0), torch.full((3,), -500.0)
    assert scalar(losses.discriminator_loss(real, fake)) == pytest.approx(0)
    assert scalar(losses.generator_loss(real, fake)) == pytest.approx(1000)
    half = losses.generator_loss(real.half(), fake.half())
    assert half.dtype == torch.float32
    assert scalar(half) == pytest.approx(1000)


def raw(rgb: Any) -> list[Any]:
    """A feature network of two maps: the picture, and its means over 2x2."""
    return [rgb, F.avg_pool2d(rgb, 2)]


def test_perceptual_sums_mean_squares_over_maps() -> None:
    """One channel of three off by 3 in one sample of 2x2: 9/12, and 0.75 in the one mean: 0.5625/3."""
    original = torch.zeros(1, 3, 2, 2)
    restored = original.clone()
    restored[0, 1, 0, 1] = 3
    assert scalar(losses.perceptual(raw, restored, original)) == pytest.approx(9 / 12 + 0.5625 / 3)
    assert scalar(losses.perceptual(raw, original, original)) == 0


def test_no_gradient_goes_through_the_original() -> None:
    original = torch.rand(1, 3, 4, 4, requires_grad=True)
    restored = torch.rand(1, 3, 4, 4, requires_grad=True)
    losses.perceptual(raw, restored, original).backward()
    assert original.grad is None
    assert restored.grad.abs().sum() > 0


def halves(rgb: Any) -> list[Any]:
    return [F.avg_pool2d(rgb, 2)]


def test_the_semantic_pair_by_hand() -> None:
    """A face on the left half and the sample right of it: features weigh 1 and 1/2 there, 0 and 1/2 on the rest."""
    original = torch.zeros(1, 3, 2, 4)
    restored = torch.cat([torch.full((1, 3, 2, 2), 2.0), torch.full((1, 3, 2, 2), 5.0)], 3)
    face = grey([1.0, 1, 1, 0], [1.0, 1, 1, 0])
    on_face = (1 * 4 + 0.5 * 25) / 1.5
    assert scalar(losses.face_loss(halves, restored, original, face)) == pytest.approx(on_face)
    assert scalar(losses.background_loss(halves, restored, original, face)) == pytest.approx(25)


def test_each_of_the_pair_uses_its_own_network_and_place() -> None:
    restored = torch.rand(2, 3, 4, 4, requires_grad=True)
    original, face = torch.rand(2, 3, 4, 4), torch.zeros(2, 1, 4, 4)
    face[0, :, :2] = 1
    (pull,) = torch.autograd.grad(losses.face_loss(lambda x: [x], restored, original, face), restored)
    (rest,) = torch.autograd.grad(losses.background_loss(lambda x: [x], restored, original, face), restored)
    assert torch.equal(pull != 0, (face > 0).expand_as(pull))
    assert torch.equal(rest != 0, (face == 0).expand_as(rest))


def test_masks_are_resized_by_area() -> None:
    """To grids that do not divide them, and from the macroblock grid up."""
    original, restored = torch.zeros(1, 1, 3, 3), torch.arange(9.0).view(1, 1, 3, 3)
    mask = torch.zeros(1, 1, 6, 6)
    mask[..., :3, :2] = 1  # the upper left ninth whole, the one below it half
    found = losses.perceptual(lambda x: [x], restored, original, mask)
    assert scalar(found) == pytest.approx((0 * 1 + 9 * 0.5) / 1.5)
    coarse = torch.tensor([[[[1.0, 0.0]]]])
    found = losses.perceptual(lambda x: [x], torch.tensor([[[[1.0, 2, 3, 4]]]]), torch.zeros(1, 1, 1, 4), coarse)
    assert scalar(found) == pytest.approx((1 + 4) / 2)


def test_the_mean_is_over_the_faces_of_all_pictures() -> None:
    """Small faces of a batch count by their area, pictures without any not at all."""
    original = torch.zeros(3, 1, 1, 4)
    restored = torch.tensor([1.0, 2, 7]).view(3, 1, 1, 1).expand(3, 1, 1, 4)
    face = torch.tensor([[1.0, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]]).view(3, 1, 1, 4)
    assert scalar(losses.face_loss(lambda x: [x], restored, original, face)) == pytest.approx((3 * 1 + 4) / 4)


@pytest.mark.parametrize(("loss", "value"), [(losses.face_loss, 0.0), (losses.background_loss, 1.0)])
def test_nothing_to_look_at_is_zero_and_pulls_nowhere(loss: Callable[..., Any], value: float) -> None:
    restored = torch.rand(2, 3, 4, 4, requires_grad=True)
    found = loss(raw, restored, torch.zeros(2, 3, 4, 4), torch.full((2, 1, 4, 4), value))
    assert scalar(found) == 0
    found.backward()
    assert torch.equal(restored.grad, torch.zeros(2, 3, 4, 4))


def test_half_precision_features_are_summed_in_single() -> None:
    features = torch.full((1, 1, 64, 64), 3.0, dtype=torch.bfloat16)
    found = losses.perceptual(lambda x: [x], features, torch.zeros_like(features), torch.ones(1, 1, 64, 64))
    assert found.dtype == torch.float32
    assert scalar(found) == pytest.approx(9)


def test_charbonnier_by_hand() -> None:
    """Differences 3 and 0 with a knee of 4: sqrt(9 + 16) - 4 and 0."""
    assert scalar(losses.charbonnier(grey([3.0, 0]), grey([0.0, 0]), 4)) == pytest.approx(0.5)
    weight = grey([5.0, 1])
    assert scalar(losses.charbonnier(grey([3.0, 0]), grey([0.0, 0]), 4, weight)) == pytest.approx(2.5)


def test_charbonnier_is_flat_at_the_bottom_and_straight_above() -> None:
    restored = torch.tensor([0.0, 1e-3, -100.0], requires_grad=True)
    losses.charbonnier(restored, torch.zeros(3), 0.5).backward()
    assert restored.grad is not None
    assert restored.grad[0] == 0
    assert float(restored.grad[1]) == pytest.approx(1e-3 / 0.5 / 3, rel=1e-4)
    assert float(restored.grad[2]) == pytest.approx(-1 / 3, rel=1e-4)


def test_low_pass_sees_colour_and_no_texture() -> None:
    flat = torch.zeros(1, 3, 16, 16)
    texture = flat.clone()
    texture[..., ::2], texture[..., 1::2] = 4, -4
    assert scalar(losses.low_pass(texture, flat)) == 0
    tinted = flat.clone()
    tinted[:, 2, :8] = -6  # one of three channels, the upper half
    assert scalar(losses.low_pass(tinted, flat)) == pytest.approx(1)


def test_low_pass_forgets_no_border() -> None:
    """3 samples in means of 2: the last one stands alone."""
    assert scalar(losses.low_pass(grey([0.0, 0, 6]), grey([0.0, 0, 0]), 2)) == pytest.approx(3)


def test_a_printed_mesh_by_hand() -> None:
    """Every fourth row one too bright: a quarter of the places by 3/4 over the mean, the others by 1/4 under it."""
    torch.manual_seed(0)
    original = 100 * torch.rand(2, 1, 96, 96)
    mesh = torch.zeros(1, 1, 96, 96)
    mesh[..., ::4, :] = 1
    assert scalar(losses.printed(original + mesh, original)) == pytest.approx(3 / 8, rel=1e-3)
    rare = torch.zeros(1, 1, 96, 96)
    rare[..., ::8, :] = 1
    assert scalar(losses.printed(original + rare, original, 8)) == pytest.approx(2 * 7 / 8 / 8, rel=1e-3)
    assert scalar(losses.printed(original + rare, original, 4)) == pytest.approx(3 / 16, rel=1e-3)
    assert scalar(losses.printed(original + 5, original)) == pytest.approx(0, abs=1e-4)


def test_errors_that_repeat_nowhere_are_no_mesh() -> None:
    torch.manual_seed(0)
    noise = torch.randn(8, 1, 96, 96)
    # The mean of 144 errors is a twelfth of one, |x| of a normal one 0.8 of it, and 16 means lie nearer their own.
    expected = 0.8 / 12 * math.sqrt(15 / 16)
    assert scalar(losses.printed(noise, torch.zeros_like(noise))) == pytest.approx(expected, rel=0.1)


def test_temporal_by_hand() -> None:
    """The originals move by 2 and 0; the restored ones by 3 and -1."""
    pictures = grey([5.0, 1]), grey([2.0, 2]), grey([9.0, 4]), grey([7.0, 4])
    assert scalar(losses.temporal(*pictures)) == pytest.approx((1 + 1) / 2)
    assert scalar(losses.temporal(*pictures, grey([3.0, 0]))) == pytest.approx(3 / 2)


def test_a_steady_error_does_not_flicker() -> None:
    torch.manual_seed(0)
    original, before = torch.rand(2, 1, 4, 4), torch.rand(2, 1, 4, 4)
    assert scalar(losses.temporal(original + 9, before + 9, original, before)) == pytest.approx(0, abs=1e-5)
    assert scalar(losses.temporal(original + 9, before - 9, original, before)) == pytest.approx(18, rel=1e-4)


def test_calm_weighs_flat_places() -> None:
    """A step of 7 code values across column 8: two samples on either side see it, one of 6 nobody does."""
    decoded = torch.zeros(1, 1, 16, 16)
    decoded[..., 8:] = 7
    expected = torch.ones(1, 1, 16, 16)
    expected[..., 6:10] = 0
    assert torch.equal(losses.calm_weight(decoded), expected)
    assert torch.equal(losses.calm_weight(decoded * 6 / 7), torch.ones(1, 1, 16, 16))


def test_a_place_is_flat_when_every_channel_is() -> None:
    rgb = torch.zeros(1, 3, 8, 8)
    rgb[:, 1, :, 0] = 50
    weight = losses.calm_weight(rgb)
    assert weight.shape == (1, 1, 8, 8)
    assert torch.equal(weight[0, 0, 0], torch.tensor([0.0, 0, 0, 1, 1, 1, 1, 1]))
