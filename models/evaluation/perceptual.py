"""A distance as the eye sees it: LPIPS where its weights are, else a plainly named stand-in."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shared.errors import SemcallError

ALEXNET = "alexnet-owt-7be5be79.pth"
HEAD = Path("lpips", "alex.pth")
LPIPS = "LPIPS v0.1 (AlexNet)"
STAND_IN = "VGG-19 distance (conv1_2, conv2_2, conv3_4; not LPIPS)"
LEAST = 32
"""Samples across and down that a picture must have for AlexNet's last layers."""


class Perceptual:
    """Distance between two pictures, from 0 (the same), lower is better; `name` says which of two it is.

    - "LPIPS v0.1 (AlexNet)" (Zhang et al. 2018), 0 .. about 1, of the whole picture at its own size: where there are
      torchvision's alexnet-owt-7be5be79.pth (`alexnet`, else torch's cache) and the authors' head, lpips/alex.pth in
      `data` or its directory `weights`.
    - Else "VGG-19 distance (conv1_2, conv2_2, conv3_4; not LPIPS)", 0 .. 6, about 1 for plain damage: that equation 1
      without weights, on ImageNet features that no restorer here is trained with (models/networks/features.py).
      Compares with itself only.

    Raises SemcallError without torch, when neither's files are there, when `alexnet` is named and missing, and when a
    file is another than it should be.

    >>> from pathlib import Path
    >>> Perceptual(Path("nowhere"))  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    shared.errors.SemcallError: No perceptual metric: nowhere has neither the weights of LPIPS ...
    """

    higher_is_better = False

    def __init__(self, data: Path, alexnet: Path | None = None) -> None:
        try:
            from models.networks import features, lpips
        except ModuleNotFoundError as error:
            raise SemcallError(f"Perceptual metrics need {error.name}: pip install 'semcall[train]'.") from None
        folder = data / "weights" if (data / "weights").is_dir() else data
        body, head, vgg = alexnet or _cache() / ALEXNET, folder / HEAD, folder / features.VGG
        net: lpips.Lpips | features.FeatureNet
        if alexnet or (body.is_file() and head.is_file()):
            self.name, net = LPIPS, lpips.load_lpips(body, head)
        elif vgg.is_file():
            self.name, net = STAND_IN, features.JudgeVgg(vgg)
        else:
            raise SemcallError(
                f"No perceptual metric: {folder} has neither the weights of {LPIPS} nor of its stand-in; put "
                f"{HEAD.as_posix()} there and torchvision's {ALEXNET} into torch's cache, or {features.VGG} there."
            )
        self._distance = lpips.PictureDistance(net)

    def __call__(self, reference: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
        """The distance of two pictures of one size, uint8 [H, W, 3] of B, G, R.

        Raises ValueError for other types or unequal sizes, SemcallError below 32x32.
        """
        for picture in (reference, other):
            if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape != (*reference.shape[:2], 3):
                raise ValueError(f"{self.name} takes two uint8 [H, W, 3], not {picture.dtype} {list(picture.shape)}")
        height, width = reference.shape[:2]
        if min(height, width) < LEAST:
            raise SemcallError(
                f"{self.name} cannot judge {width}x{height}; give pictures of at least {LEAST}x{LEAST}."
            )
        return self._distance(reference, other)


def _cache() -> Path:
    """Where torch.hub keeps what torchvision has downloaded, by torch's rules."""
    home = os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "torch")
    return Path(home, "hub", "checkpoints").expanduser()
