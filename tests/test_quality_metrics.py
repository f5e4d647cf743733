"""Quality metrics: values calibrated against reference implementations (docs/metrics.md), properties, sentences."""

from __future__ import annotations

import math
import shutil
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from models.evaluation import brisque
from models.evaluation.bd_rate import bandwidth_factor, bd_rate
from models.evaluation.brisque import Brisque, features
from models.evaluation.flicker import flicker
from models.evaluation.identity import STANDARD_POINTS, Identity, align, cosine, similarity_transform
from models.evaluation.metrics import psnr, ssim, ssim_map
from models.evaluation.perceptual import ALEXNET, LPIPS, STAND_IN, Perceptual
from shared.astronaut import photograph
from shared.errors import SemcallError

Picture = NDArray[np.uint8]

DATA = Path(__file__).parents[2] / "shared" / "data"
WEIGHTS = DATA / "weights"
needs_data = pytest.mark.skipif(not WEIGHTS.is_dir(), reason="needs ../shared/data")


def blurred(picture: Picture, sigma: float = 2) -> Picture:
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma), np.uint8)


def noisy(picture: Picture, sigma: float = 15) -> Picture:
    noise = np.random.default_rng(0).normal(0, sigma, picture.shape)
    return np.clip(np.rint(picture + noise), 0, 255).astype(np.uint8)


def jpeg(picture: Picture, quality: int = 20) -> Picture:
    content = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(content, cv2.IMREAD_COLOR), np.uint8)


@cache
def pictures() -> dict[str, Picture]:
    photo = photograph()
    return {"original": photo, "blur": blurred(photo), "noise": noisy(photo), "jpeg": jpeg(photo)}


def grey(name: str) -> Picture:
    return np.asarray(cv2.cvtColor(pictures()[name], cv2.COLOR_BGR2GRAY), np.uint8)


# JPEG codecs round differently: wider tolerances where one made the picture.


@pytest.mark.parametrize(
    ("name", "decibels", "whole", "cropped", "tolerance"),
    [
        ("blur", 25.18686, 0.825754, 0.823085, 1e-5),
        ("noise", 28.48573, 0.614285, 0.618791, 1e-5),
        ("jpeg", 31.5030, 0.910190, 0.909139, 1e-3),
    ],
)
def test_psnr_and_ssim_are_the_references(
    name: str, decibels: float, whole: float, cropped: float, tolerance: float
) -> None:
    original, other = grey("original"), grey(name)
    assert psnr(original, other) == pytest.approx(decibels, abs=20 * tolerance)
    assert ssim(original, other) == pytest.approx(whole, abs=tolerance)
    assert float(ssim_map(original, other)[5:-5, 5:-5].mean()) == pytest.approx(cropped, abs=tolerance)


def test_ssim_crops_to_scikit_image_today() -> None:
    metrics = pytest.importorskip("skimage.metrics", reason="needs scikit-image")
    original, other = grey("original")[:128, :160], grey("noise")[:128, :160]
    how = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    theirs = metrics.structural_similarity(original, other, **how)
    assert float(ssim_map(original, other)[5:-5, 5:-5].mean()) == pytest.approx(theirs, abs=1e-5)
    assert psnr(original, other) == pytest.approx(metrics.peak_signal_noise_ratio(original, other), abs=1e-4)


def test_psnr_and_ssim_fall_with_damage_and_do_not_care_who_is_first() -> None:
    original = grey("original")[60:188, 160:288]
    worse = [noisy(original, sigma) for sigma in (2, 8, 32)]
    for metric in (psnr, ssim):
        values = [metric(original, other) for other in (original, *worse)]
        assert values == sorted(values, reverse=True)
        assert metric(worse[1], original) == pytest.approx(values[2], abs=1e-6)
        assert metric(original[:, ::-1], worse[1][:, ::-1]) == pytest.approx(values[2], abs=1e-5)
        assert math.isnan(metric(original, worse[0], np.zeros(original.shape, np.bool_)))


# OpenCV 5.0.0's quality module, computeFeatures, of the original: the first 18 of 36.
FEATURES = [
    1.447, 0.21658783, 0.581, 0.01856301, 0.05135364, 0.06664335, 0.574, 0.02266842, 0.05206333, 0.07123469,
    0.581, -0.01312503, 0.06557897, 0.05465461, 0.589, -0.01807337, 0.06643215, 0.05162896,
]  # fmt: skip


def test_brisque_features_are_opencvs() -> None:
    values = features(pictures()["original"])
    assert values.shape == (36,)
    assert values.dtype == np.float32
    assert values[:18] == pytest.approx(FEATURES, abs=1e-5)


def test_brisque_features_of_the_mirrored_picture_have_the_diagonals_swapped() -> None:
    values, mirrored = (features(picture).reshape(2, 18) for picture in (grey("noise"), grey("noise")[:, ::-1]))
    swapped = [*range(10), *range(14, 18), *range(10, 14)]
    assert mirrored[:, swapped] == pytest.approx(values, abs=2e-3)


@needs_data
@pytest.mark.parametrize(
    ("name", "score", "tolerance"),
    [("original", 0.4951, 0.02), ("blur", 57.6540, 0.02), ("noise", 35.4630, 0.02), ("jpeg", 27.5228, 1)],
)
def test_brisque_is_opencvs(name: str, score: float, tolerance: float) -> None:
    assert Brisque(DATA)(pictures()[name]) == pytest.approx(score, abs=tolerance)


@needs_data
def test_brisque_rises_with_damage_and_sees_luminance_only() -> None:
    score, photo = Brisque(WEIGHTS), photograph()
    scores = [score(blurred(photo, sigma)) for sigma in (0.5, 1, 2, 4)]
    assert scores == sorted(scores)
    assert score(grey("noise")) == score(pictures()["noise"])
    assert 0 <= score(photo[:301, :257]) <= 100  # odd sizes
    assert math.isnan(score(np.full((64, 64), 90, np.uint8)))


def test_brisque_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(SemcallError, match=r"cannot be read; put OpenCV's brisque_model_live\.yml"):
        Brisque(tmp_path)
    (tmp_path / brisque.MODEL).write_text("%YAML:1.0\n")
    with pytest.raises(SemcallError, match="another file than OpenCV's"):
        Brisque(tmp_path)
    with pytest.raises(SemcallError, match=r"cannot judge 15x40; give .* 16x16"):
        features(np.zeros((40, 15), np.uint8))
    with pytest.raises(ValueError, match=r"not float64 \[32, 32\]"):
        features(np.zeros((32, 32)))


def test_flicker_is_wrong_change() -> None:
    rng = np.random.default_rng(1)
    source = [rng.integers(60, 190, (24, 32), np.uint8) for _ in range(3)]
    assert flicker(source, source) == 0
    assert flicker(source, [plane + np.uint8(9) for plane in source]) == 0  # a constant error does not flicker
    other = [source[0], source[1] + np.uint8(4), source[2]]
    assert flicker(source, other) == 4  # up and down again
    assert flicker(source[:2], [source[0], source[0]]) == pytest.approx(
        float(np.abs(source[1].astype(int) - source[0]).mean()), abs=1e-4
    )
    left = np.zeros((24, 32), np.bool_)
    left[:, :16] = True
    half = source[1].copy()
    half[:, 16:] += 8
    assert flicker(source[:2], [source[0], half], left) == 0
    assert flicker(source[:2], [source[0], half]) == 4
    assert math.isnan(flicker(source, other, np.zeros((24, 32), np.bool_)))
    with pytest.raises(ValueError, match="not 1 and 1"):
        flicker(source[:1], source[:1])
    with pytest.raises(ValueError, match="not 3 and 2"):
        flicker(source, source[:2])


# Two curves of x264-like rates (kb/s) and PSNR; bjontegaard 1.3.0 with method="pchip" gives 31.379878202397627.
ANCHOR = [(85.95, 31.42), (157.11, 34.24), (309.58, 37.18), (686.76, 40.28)]
TEST = [(112.75, 31.24), (204.93, 34.17), (407.8, 37.21), (893.34, 40.39)]


def test_bd_rate_of_known_curves() -> None:
    assert bd_rate(ANCHOR, TEST).value == pytest.approx(31.379878202397627, abs=1e-9)
    assert bd_rate(ANCHOR, ANCHOR).value == pytest.approx(0, abs=1e-9)
    there, back = bd_rate(ANCHOR, TEST).value, bd_rate(TEST, ANCHOR).value
    assert (1 + there / 100) * (1 + back / 100) == pytest.approx(1)
    assert bd_rate(ANCHOR[::-1], TEST).value == bd_rate(ANCHOR, TEST).value
    worse_is_more = [[(rate, -metric) for rate, metric in curve] for curve in (ANCHOR, TEST)]
    assert bd_rate(*worse_is_more, higher_is_better=False).value == bd_rate(ANCHOR, TEST).value


def test_bd_rate_by_hand() -> None:
    """Straight lines of 3 and 2 dB per decade of rate that meet at 100: the mean over 33 .. 36 dB of log rate."""
    three = [(100 * 10 ** (step / 3), 33.0 + step) for step in range(4)]
    two = [(100 * 10 ** (step / 2), 33.0 + step) for step in range(4)]
    mean = 1.5 * (1 / 2 - 1 / 3)  # of (metric - 33) is 1.5
    assert bd_rate(three, two).value == pytest.approx(100 * (10**mean - 1))


@pytest.mark.parametrize(
    ("test", "reason"),
    [
        (TEST[:3], "the test has 3 of the 4 points needed"),
        ([(rate, metric + 12) for rate, metric in TEST], "share no range"),
        ([*TEST[:3], (900.0, 37.0)], "the test does not improve"),
        ([*TEST[:3], (900.0, math.nan)], "without the metric"),
        ([*TEST, TEST[0]], "two points at one rate"),
        ([*TEST, (0.0, 20.0)], "not positive"),
    ],
)
def test_bd_rate_says_why_there_is_none(test: list[tuple[float, float]], reason: str) -> None:
    reading = bd_rate(ANCHOR, test)
    assert math.isnan(reading.value)
    assert reason in reading.reason


def test_bandwidth_factor_reads_both_curves() -> None:
    ours = [(rate / 3, metric) for rate, metric in ANCHOR]  # a third of the rate for the same metric
    for rate, _ in ours:
        assert bandwidth_factor(ANCHOR, ours, rate).value == pytest.approx(3, rel=1e-9)
    assert bandwidth_factor(ANCHOR, ours, 80).value == pytest.approx(3, rel=0.01)  # two inverse cubics
    assert bandwidth_factor(ANCHOR, ANCHOR, 200).value == pytest.approx(1, rel=0.01)
    lower = [[(rate, -metric) for rate, metric in curve] for curve in (ANCHOR, ours)]
    assert bandwidth_factor(*lower, 60, higher_is_better=False) == bandwidth_factor(ANCHOR, ours, 60)
    bumpy = [(50.0, 33.0), (100.0, 32.0), (200.0, 38.0)]  # ours need not be steady: it is read at one rate
    assert bandwidth_factor(ANCHOR, bumpy, 100).value == pytest.approx(
        bandwidth_factor(ANCHOR, [(100, 32), (200, 38)], 100).value
    )


def test_bandwidth_factor_never_extrapolates() -> None:
    ours = [(100.0, 30.0), (200.0, 38.0), (400.0, 45.0)]
    for rate, reason in (
        (400.0, "the factor is above 1.72"),
        (100.0, "the factor is below 0.86"),
        (50.0, "not measured on both sides"),
    ):
        reading = bandwidth_factor(ANCHOR, ours, rate)
        assert math.isnan(reading.value)
        assert reason in reading.reason
    reading = bandwidth_factor([(100.0, 30.0), (200.0, 30.0)], ours, 200)
    assert reading.reason == "plain's curve does not improve with every step of the rate"


def test_similarity_transform_is_umeyamas() -> None:
    """The paper's own computation, by singular values."""
    rng = np.random.default_rng(4)
    for _ in range(20):
        points = rng.normal(100, 40, (5, 2))
        one, two = points - points.mean(0), STANDARD_POINTS - STANDARD_POINTS.mean(0)
        u, d, vt = np.linalg.svd(two.T @ one)
        signs = np.array([1, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
        turn = (u * signs) @ vt * (d @ signs) / (one**2).sum()
        expected = np.column_stack([turn, STANDARD_POINTS.mean(0) - turn @ points.mean(0)])
        assert similarity_transform(points, STANDARD_POINTS) == pytest.approx(expected, abs=1e-8)
    with pytest.raises(ValueError, match="one place"):
        similarity_transform(np.ones((5, 2)), STANDARD_POINTS)


@pytest.mark.parametrize("scale", [1.0, 1.7, 3.0, 6.0])
def test_align_puts_points_where_they_belong(scale: float) -> None:
    points = STANDARD_POINTS @ np.array([[0.0, scale], [-scale, 0.0]]) + [120 * scale, 5 * scale]  # on its side
    canvas = np.zeros((round(130 * scale), round(140 * scale), 3), np.uint8)
    for x, y in points:
        cv2.circle(canvas, (round(x), round(y)), max(2, round(3 * scale)), (255, 255, 255), -1)
    crop = align(canvas, points)
    assert crop.shape == (112, 112, 3)
    labels = cv2.connectedComponentsWithStats((crop[..., 0] > 127).astype(np.uint8))
    centres = labels[3][1:]
    for point in STANDARD_POINTS:
        assert np.abs(centres - point).max(1).min() < 0.75


def test_cosine_of_known_vectors() -> None:
    one = np.array([1, 0, 0], np.float32)
    assert cosine(one, -one) == -1
    assert cosine(one, np.array([1, 1, 0], np.float32)) == pytest.approx(math.sqrt(0.5))
    assert math.isnan(cosine(one, np.zeros(3, np.float32)))


@needs_data
def test_identity_falls_with_damage() -> None:
    identity = Identity(WEIGHTS / "mobilefacenet_112.onnx", WEIGHTS / "yunet_n_640_640.onnx")
    assert identity.name == "identity similarity (mobilefacenet_112)"
    photo = photograph()
    values = [identity(photo, blurred(photo, sigma)) for sigma in (0.3, 1, 2, 4)]
    assert identity(photo, photo) == pytest.approx(1, abs=1e-6)
    assert values == sorted(values, reverse=True)
    assert values[2] == pytest.approx(0.807, abs=0.02)
    assert identity(photo, pictures()["jpeg"]) == pytest.approx(0.959, abs=0.02)
    # The same face elsewhere, turned and smaller is the same face.
    turned = cv2.warpAffine(photo, np.array([[0.7, 0.1, 60], [-0.1, 0.7, 90]]), (512, 512)).astype(np.uint8)
    crops = [
        align(picture, points) for picture in (photo, turned) if (points := identity.landmarks(picture)) is not None
    ]
    assert cosine(*identity.embed(np.stack(crops))) > 0.8
    assert math.isnan(identity(np.zeros_like(photo), photo))
    with pytest.raises(ValueError, match="one size"):
        identity(photo, photo[:100])


@needs_data
def test_identity_says_what_is_wrong(tmp_path: Path) -> None:
    detector = WEIGHTS / "yunet_n_640_640.onnx"
    with pytest.raises(SemcallError, match=r"face embedder .* cannot be read"):
        Identity(tmp_path / "none.onnx", detector)
    with pytest.raises(SemcallError, match=r"does not turn float \[n, 3, 112, 112\] into \[n, d\]"):
        Identity(detector, detector)
    with pytest.raises(SemcallError, match="reference detector"):
        Identity(WEIGHTS / "mobilefacenet_112.onnx", tmp_path / "none.onnx")


@needs_data
def test_the_stand_in_is_named_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="needs the train extra")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    perceptual = Perceptual(DATA)
    assert perceptual.name == STAND_IN
    photo = photograph()[60:188, 160:288]
    assert perceptual(photo, photo) == 0
    values = [perceptual(photo, noisy(photo, sigma)) for sigma in (2, 8, 32)]
    assert values == sorted(values)
    assert perceptual(noisy(photo, 8), photo) == pytest.approx(values[1], rel=1e-5)
    assert 0.02 < values[0] < values[-1] < 6


def test_perceptual_says_what_is_wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="needs the train extra")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    with pytest.raises(SemcallError, match="neither the weights of LPIPS"):
        Perceptual(tmp_path)
    with pytest.raises(SemcallError, match=r"none\.pth cannot be read; give the path of torchvision's"):
        Perceptual(tmp_path, tmp_path / "none.pth")
    for path in (tmp_path / "torch" / "hub" / "checkpoints" / ALEXNET, tmp_path / "lpips" / "alex.pth"):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"something else")
    with pytest.raises(SemcallError, match=r"another file than torchvision's .* \(SHA-256 7be5be79"):
        Perceptual(tmp_path)


def random_lpips() -> tuple[dict[str, object], dict[str, object]]:
    """State of an AlexNet and a head with random weights, made by torch's own modules."""
    import torch

    torch.manual_seed(5)
    shapes = {0: (3, 64, 11), 3: (64, 192, 5), 6: (192, 384, 3), 8: (384, 256, 3), 10: (256, 256, 3)}
    body: dict[str, object] = {"classifier.1.weight": torch.zeros(2)}
    for layer, (into, out, kernel) in shapes.items():
        state = torch.nn.Conv2d(into, out, kernel).state_dict()
        body |= {f"features.{layer}.{name}": value for name, value in state.items()}
    head = {f"lin{k}.model.1.weight": torch.rand(1, shape[1], 1, 1) for k, shape in enumerate(shapes.values())}
    return body, head


def test_lpips_computes_the_papers_equation() -> None:
    """Against a computation in plain loops over what torch.nn's layers give."""
    torch = pytest.importorskip("torch", reason="needs the train extra")
    from models.networks.lpips import Lpips, PictureDistance

    body, head = random_lpips()
    nn = torch.nn
    stack = nn.Sequential(
        nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
    )  # fmt: skip
    stack.load_state_dict({name.removeprefix("features."): x for name, x in body.items() if "features" in name})

    def maps(bgr: Picture) -> list[NDArray[np.float64]]:
        rgb = bgr[..., ::-1].astype(np.float64) / 127.5 - 1
        scaled = (rgb - [-0.030, -0.088, -0.188]) / [0.458, 0.448, 0.450]
        x, found = torch.tensor(scaled.transpose(2, 0, 1)[None], dtype=torch.float32), []
        with torch.no_grad():
            for index, layer in enumerate(stack):
                x = layer(x)
                if index in (1, 4, 7, 9, 11):
                    found.append(x[0].numpy().astype(np.float64))
        return found

    photo = photograph()[60:131, 160:255]
    other = noisy(photo)
    expected = 0.0
    for one, two, weight in zip(maps(photo), maps(other), head.values(), strict=True):
        unit = [m / np.sqrt((m**2).sum(0)) for m in (one, two)]
        expected += float((weight[0].numpy() * (unit[0] - unit[1]) ** 2).sum(0).mean())
    distance = PictureDistance(Lpips(body, head))
    assert distance(photo, other) == pytest.approx(expected, rel=1e-4)
    assert distance(photo, photo) == 0


def test_lpips_refuses_other_layouts(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="needs the train extra")
    from models.networks.lpips import Lpips

    body, head = random_lpips()
    with pytest.raises(SemcallError, match=r"AlexNet: features\.6\.bias is missing instead of \[384\]"):
        Lpips({name: x for name, x in body.items() if name != "features.6.bias"}, head)
    with pytest.raises(
        SemcallError, match=r"LPIPS head: lin0\.model\.1\.weight is \[1, 3\] instead of \[1, 64, 1, 1\]"
    ):
        Lpips(body, {**head, "lin0.model.1.weight": torch.zeros(1, 3)})


@needs_data
def test_lpips_takes_its_name_where_the_weights_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="needs the train extra")
    from models.networks import lpips

    cached = tmp_path / "torch" / "hub" / "checkpoints" / ALEXNET
    cached.parent.mkdir(parents=True)
    torch.save(random_lpips()[0], cached)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(lpips, "ALEXNET_SHA256", "")  # random weights have another sum
    (tmp_path / "data" / "lpips").mkdir(parents=True)
    shutil.copy(WEIGHTS / "lpips" / "alex.pth", tmp_path / "data" / "lpips")
    photo = photograph()[60:188, 160:288]
    for perceptual in (Perceptual(tmp_path / "data"), Perceptual(DATA, cached)):
        assert perceptual.name == LPIPS
        assert perceptual(photo, photo) == 0
        assert 0 < perceptual(photo, noisy(photo, 8)) < perceptual(photo, noisy(photo, 40)) < 1
    with pytest.raises(SemcallError, match="cannot judge 20x40"):
        perceptual(photo[:40, :20], photo[:40, :20])
    with pytest.raises(ValueError, match=r"not uint8 \[128, 100, 3\]"):
        perceptual(photo, photo[:, :100])
