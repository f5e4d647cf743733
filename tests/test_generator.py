"""The paper's generator and both discriminators: shapes, where they start, and that they learn."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")

from models.networks.discriminator import PaperDiscriminator, PatchDiscriminator  # noqa: E402
from models.networks.generator import PaperGenerator  # noqa: E402
from models.training.losses import discriminator_loss, generator_loss  # noqa: E402


def count(net: Any) -> int:
    return sum(p.numel() for p in net.parameters())


def silent(net: Any) -> list[str]:
    """Parameters that no gradient has reached."""
    return [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


def test_the_papers_generator_has_its_size() -> None:
    """32 inner 3x3 convolutions of 64 channels, one from RGB and one to it."""
    net = PaperGenerator()
    assert len(net.body) == 15
    assert count(net) == 32 * (64 * 64 * 9 + 64) + (3 * 64 * 9 + 64) + (64 * 3 * 9 + 3) == 1_185_219
    assert not [module for module in net.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)]


@pytest.mark.parametrize(("height", "width"), [(32, 48), (17, 22), (18, 21), (7, 5), (2, 1), (1, 1)])
def test_pictures_keep_their_size(height: int, width: int) -> None:
    net = PaperGenerator(8, 1).eval()
    with torch.inference_mode():
        assert net(torch.rand(2, 3, height, width)).shape == (2, 3, height, width)


def test_it_begins_as_the_identity_when_its_last_layer_is_zero() -> None:
    net = PaperGenerator(8, 2)
    torch.nn.init.zeros_(net.exit.weight)
    rgb = torch.rand(1, 3, 12, 13)
    assert torch.equal(net(rgb), rgb)
    assert torch.equal(net.eval()(rgb), rgb)


def test_a_fresh_one_changes_little_and_explodes_nowhere() -> None:
    torch.manual_seed(0)
    rgb = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        change = PaperGenerator(16, 15).residual(rgb)
    assert 0 < change.std() < 0.3


def test_flat_pictures_are_treated_alike_up_to_the_border() -> None:
    """Replication: a grey picture has no border that a network could see."""
    torch.manual_seed(0)
    with torch.no_grad():
        change = PaperGenerator(8, 2).residual(torch.full((1, 3, 16, 20), 0.3))
    assert change.abs().max() > 0
    assert change.amax((2, 3)) == pytest.approx(change.amin((2, 3)), abs=1e-5)


def test_it_clips_outside_training_only() -> None:
    net = PaperGenerator(4, 1)
    torch.nn.init.constant_(net.exit.bias, 2.0)
    rgb = torch.rand(1, 3, 8, 8, requires_grad=True)
    assert net(rgb).max() > 1
    net(rgb).sum().backward()
    assert not silent(net)
    with torch.no_grad():
        assert net.eval()(rgb).max() == 1


@pytest.mark.parametrize("make", [lambda: PaperDiscriminator(32, 4), lambda: PatchDiscriminator(8)])
def test_gradients_reach_every_parameter_of_the_pair(make: Any) -> None:
    torch.manual_seed(0)
    net, critic = PaperGenerator(8, 3), make()
    decoded, original = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    restored = net(decoded)
    discriminator_loss(critic(original, decoded), critic(restored.detach(), decoded)).backward()
    assert not silent(critic)
    assert set(silent(net)) == {name for name, _ in net.named_parameters()}
    generator_loss(critic(original, decoded).detach(), critic(restored, decoded)).backward()
    assert not silent(net)


@pytest.mark.parametrize(("size", "layers"), [(256, 6), (96, 5), (33, 4), (8, 1)])
def test_the_papers_discriminator_gives_a_logit_a_patch(size: int, layers: int) -> None:
    net = PaperDiscriminator(size, 4)
    strided = [module for module in net.body if isinstance(module, torch.nn.Conv2d)]
    assert [conv.stride for conv in strided] == [(2, 2)] * layers
    assert strided[0].in_channels == 6
    with torch.no_grad():
        assert net(torch.rand(3, 3, size, size), torch.rand(3, 3, size, size)).shape == (3, 1)


def test_patches_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="takes 32x32 samples"):
        PaperDiscriminator(32, 4)(torch.rand(1, 3, 34, 34), torch.rand(1, 3, 34, 34))
    with pytest.raises(ValueError, match="at least 8"):
        PaperDiscriminator(7)


@pytest.mark.parametrize("make", [lambda: PaperDiscriminator(32, 4), lambda: PatchDiscriminator(8)])
def test_the_decoded_picture_matters(make: Any) -> None:
    torch.manual_seed(0)
    net, candidate = make().eval(), torch.rand(1, 3, 32, 32)  # in training every call refines the spectral norm
    with torch.no_grad():
        assert not torch.allclose(net(candidate, candidate), net(candidate, torch.rand(1, 3, 32, 32)))


def test_the_patch_discriminator_gives_a_logit_every_4_samples() -> None:
    net = PatchDiscriminator()
    assert 40_000 < count(net) < 80_000
    with torch.no_grad():
        assert net(torch.rand(2, 3, 48, 64), torch.rand(2, 3, 48, 64)).shape == (2, 1, 12, 16)


def test_a_logit_sees_36_samples() -> None:
    torch.manual_seed(0)
    candidate = torch.rand(1, 3, 96, 96, requires_grad=True)
    PatchDiscriminator(8)(candidate, torch.rand(1, 3, 96, 96))[0, 0, 12, 12].backward()
    rows = candidate.grad.abs().sum((0, 1, 3)).nonzero().flatten()
    assert int(rows[-1] - rows[0]) + 1 == 36


def test_spectral_norm_bounds_every_layer() -> None:
    """Whatever training did to the weights: the matrix of each has no singular value above one."""
    torch.manual_seed(0)
    net = PatchDiscriminator(8)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(30)
    decoded = torch.rand(1, 3, 16, 16)
    for _ in range(50):
        net(decoded, decoded)
    net.eval()
    for module in net.body:
        if isinstance(module, torch.nn.Conv2d):
            largest = torch.linalg.matrix_norm(module.weight.detach().flatten(1), 2)
            assert float(largest) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("make", [lambda: PaperDiscriminator(32, 4), lambda: PatchDiscriminator(8)])
def test_discriminators_learn_to_tell_noise_from_blur(make: Any) -> None:
    torch.manual_seed(0)
    net = make()
    optimiser = torch.optim.Adam(net.parameters(), 2e-3, betas=(0.5, 0.99))
    for _ in range(40):
        decoded = torch.nn.functional.avg_pool2d(torch.rand(4, 3, 34, 34), 3, 1)
        sharp = decoded + 0.1 * torch.randn_like(decoded)
        loss = discriminator_loss(net(sharp, decoded), net(decoded, decoded))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        assert net(sharp, decoded).mean() > net(decoded, decoded).mean()
    assert float(loss.detach()) < 0.6, "ln 2 = 0.693 is knowing nothing"


def test_a_narrow_generator_learns_one_patch() -> None:
    """Blocks of 8x8 hide a drawing; after 300 steps over nine tenths of the squared error are gone."""
    torch.manual_seed(0)
    x = torch.linspace(0, 6.28, 24)
    original = torch.stack([torch.sin(k * x)[:, None] * torch.cos(x)[None] for k in (1, 2, 3)])[None] * 0.4 + 0.5
    decoded = torch.nn.functional.avg_pool2d(original, 8).repeat_interleave(8, 2).repeat_interleave(8, 3)
    net = PaperGenerator(16, 2)
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(300):
        loss = (net(decoded) - original).pow(2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        left = (net.eval()(decoded) - original).pow(2).mean()
    assert left < 0.1 * (decoded - original).pow(2).mean()
