"""PSNR and SSIM on cases whose values are known."""

import numpy as np
import pytest

from models.evaluation.metrics import psnr, ssim
from shared.astronaut import AstronautClip
from shared.picture import planes


def test_ssim_and_psnr_of_known_cases() -> None:
    image = planes(AstronautClip((128, 72)).picture(0))[0]
    assert ssim(image, image) == pytest.approx(1, abs=1e-6)
    assert psnr(image, image ^ 1) == pytest.approx(48.13, abs=0.01)
    assert ssim(image, 255 - image) < 0


def test_only_the_samples_asked_for_count() -> None:
    image = planes(AstronautClip((128, 72)).picture(0))[0]
    other = image.copy()
    other[:, :64] ^= 1
    right = np.zeros(image.shape, np.bool_)
    right[:, 80:] = True
    assert psnr(image, other, right) == 96
    assert ssim(image, other, right) == pytest.approx(1, abs=1e-6)
    assert psnr(image, other) == pytest.approx(48.13 + 3.01, abs=0.01)
