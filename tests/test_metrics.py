"""PSNR and SSIM on cases whose values are known."""

import pytest

from models.evaluation import metrics


def test_ssim_and_psnr_of_known_cases() -> None:
    image = planes(moving(64, 64, 1)[0])[0]
    assert metrics.ssim(image, image) == pytest.approx(1, abs=1e-6)
    assert metrics.psnr(image, image ^ 1) == pytest.approx(48.13, abs=0.01)
    assert metrics.ssim(image, 255 - image) < 0
