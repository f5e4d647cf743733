"""What a restorer is trained to lower (Galteri et al. 2020, section 3), as functions of tensors.

Pictures are float [n, c, H, W], restored, decoded or original; feature networks are given, as functions of RGB in
0..1 (models/networks/backbones.py). Which of them, the recipe decides: a restorer that ships must not be trained on
the one that it is judged with. All losses are 0 or more, are averages, so that sizes of batches do not matter, and
have gradients everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from models.evaluation.flicker import FLAT_SPAN

Features = Callable[[Tensor], Sequence[Tensor]]
"""RGB 0..1, float [n, 3, H, W], to feature maps [n, c, h, w]."""


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Relativistic average GAN, the discriminator's side (eq. 1): logits of originals and of restored pictures.

    Any shapes, averaged over; ln 2 where it cannot tell them apart. Both signs are Jolicoeur-Martineau's (2018,
    "The relativistic discriminator"): -log(D) for originals, -log(1 - D) for restored ones, where D is
    the sigmoid of a logit less the mean of the other kind's. The paper prints `1 - log(.)` for the latter, which
    would reward mistakes. Each half counts for 1/2.
    """
    real, fake = real.float(), fake.float()  # the exponentials of half precision are coarse
    return (F.softplus(fake.mean() - real).mean() + F.softplus(fake - real.mean()).mean()) / 2


def generator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """The generator's side (eq. 2): restored pictures should look more real than originals do on average.

    As `discriminator_loss` with the roles exchanged. `real` may be detached: only `fake` depends on the generator.
    """
    return discriminator_loss(fake, real)


def perceptual(net: Features, restored: Tensor, original: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean squared difference of features, summed over the network's maps, of RGB 0..1, float [n, 3, H, W].

    The paper's perceptual loss with VGG-19's conv5_4 before ReLU as `net`. `mask`: float [n, 1, H, W] in 0..1
    (or coarser, as on the macroblock grid), the weight of every sample; a feature's weight is the mean over its area,
    and the mean over weighted positions of all n pictures is taken: 0 where there are none.
    """
    with torch.no_grad():
        wanted = [features.detach() for features in net(original)]
    found = net(restored)
    return torch.stack([_masked(a - b, mask) for a, b in zip(found, wanted, strict=True)]).sum()


def background_loss(eye: Features, restored: Tensor, original: Tensor, face: Tensor) -> Tensor:
    """L_B of the semantic pair (eq. 3-6): `perceptual` outside the face, on a network for things (VGG-19).

    `face`: float [n, 1, H, W], 1 on faces, 0 elsewhere.
    """
    return perceptual(eye, restored, original, 1 - face)


def face_loss(recogniser: Features, restored: Tensor, original: Tensor, face: Tensor) -> Tensor:
    """L_F of the semantic pair (eq. 3-6): `perceptual` on the face, on a network for faces (VGG-Face).

    `face`: float [n, 1, H, W], 1 on faces, 0 elsewhere. 0, without a gradient, where no picture has a face.
    """
    return perceptual(recogniser, restored, original, face)


def charbonnier(restored: Tensor, original: Tensor, knee: float, weight: Tensor | float = 1.0) -> Tensor:
    """Mean of sqrt(d^2 + knee^2) - knee: about |d| beyond `knee`, d^2 / (2 knee) below it; in the pictures' unit.

    `knee`: above 0, or the gradient is NaN where nothing differs. `weight`: of every sample, in any shape that
    broadcasts. Plain L1 (a small knee) has its optimum at no change at all for most samples of a well coded picture:
    a fresh network learns to do nothing.
    """
    return (weight * (((restored - original).pow(2) + knee**2).sqrt() - knee)).mean()


def low_pass(restored: Tensor, original: Tensor, size: int = 8) -> Tensor:
    """L1 of means over `size` x `size` samples, in the pictures' unit: holds colour and light, leaves texture free.

    At the right and lower border means are over what is there.
    """
    difference = F.avg_pool2d(restored - original, size, ceil_mode=True, count_include_pad=False)
    return difference.abs().mean()


def printed(restored: Tensor, original: Tensor, period: int = 4, size: int = 12) -> Tensor:
    """How far errors repeat: a mesh that upsampling by `period` prints, in the pictures' unit.

    Errors are averaged over samples of the same place in a square of `period`, within `size` by `size` such squares;
    the mean distance of these averages from their own mean. 0 for an error that is the same everywhere.
    """
    phases = F.pixel_unshuffle(restored - original, period)
    means = F.avg_pool2d(phases, size, ceil_mode=True, count_include_pad=False)
    count = period * period
    means = means.reshape(len(means), -1, count, means.shape[2], means.shape[3])
    return (means - means.mean(2, keepdim=True)).abs().mean()


def temporal(
    restored: Tensor, before: Tensor, original: Tensor, original_before: Tensor, weight: Tensor | float = 1.0
) -> Tensor:
    """Flicker: mean |(restored - before) - (original - original_before)|, in the pictures' unit.

    Two successive pictures of one shape, restored and original; 0 where the restored ones move just as the originals
    do, right or wrong. `weight` as in `charbonnier`.
    """
    return (weight * ((restored - before) - (original - original_before)).abs()).mean()


def calm_weight(picture: Tensor) -> Tensor:
    """Where there is nothing to mend: float [n, 1, H, W], 1 on flat samples, else 0.

    Flat is what spans at most FLAT_SPAN code values, the unit of `picture`, float [n, c, H, W], over 5x5 samples in
    every channel: what a network does on a bare wall flickers.
    """
    span = F.max_pool2d(picture, 5, 1, 2) + F.max_pool2d(-picture, 5, 1, 2)
    # Half a code more: codes that were computed are not whole.
    return (span.amax(1, keepdim=True) <= FLAT_SPAN + 0.5).to(picture.dtype)


def _masked(difference: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over positions of the mean square over channels, positions weighed by the mask."""
    squares = difference.float().pow(2).mean(1, keepdim=True)  # in float32: sums in half precision stop growing
    if mask is None:
        return squares.mean()
    # The area resize: adaptive means cover every sample, whatever the two sizes.
    weight = F.adaptive_avg_pool2d(mask.float(), (squares.shape[2], squares.shape[3]))
    return (weight * squares).sum() / weight.sum().clamp_min(1e-6)
