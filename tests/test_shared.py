"""What both ends share: mailbox, windows of figures, macroblock grid, picture planes."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.astronaut import AstronautClip
from shared.errors import SemcallError
from shared.grid import grid_shape, mask_to_pixels, row_runs
from shared.lines import JsonLines
from shared.mailbox import Latest
from shared.picture import Picture, bgr_from_i420, bgra_from_i420, i420_from_bgr, planes, size_of
from shared.stats import WindowedRate, WindowedValues


def test_mailbox_keeps_the_newest_and_counts_the_rest() -> None:
    box: Latest[int] = Latest()
    assert box.get(timeout=0) is None
    for item in (1, 2, 3):
        box.put(item)
    assert box.dropped == 2
    assert box.get() == 3
    assert box.get(timeout=0) is None
    box.put(4)
    assert box.dropped == 2


def test_what_a_reader_took_in_vain_counts_as_dropped() -> None:
    box: Latest[int] = Latest()
    box.put(1)
    assert box.get(timeout=0) == 1
    box.drop()
    assert box.dropped == 1


def test_mailbox_closes_after_what_is_inside() -> None:
    box: Latest[int] = Latest()
    box.put(1)
    box.close()
    box.put(2)
    assert box.closed
    assert box.get() == 1
    assert box.get() is None


def test_mailbox_wakes_a_waiting_reader() -> None:
    box: Latest[str] = Latest()
    got: list[str | None] = []
    reader = threading.Thread(target=lambda: got.extend([box.get(10), box.get(10)]))
    reader.start()
    box.put("picture")
    while reader.is_alive() and not got:  # the reader took the first
        reader.join(0.01)
        if not box.dropped and box._item is None:
            break
    box.close()
    reader.join(5)
    assert not reader.is_alive()
    assert got == ["picture", None]


def test_rate_over_a_window() -> None:
    rate = WindowedRate(span=2.0)
    assert rate.per_second(5.0) == 0.0
    rate.add(10.0, 1000)
    assert rate.per_second(10.1) == 1000  # a young window counts as a second
    for tenth in range(1, 60):
        rate.add(10 + tenth / 10, 100)
    assert rate.total(15.9) == pytest.approx(2100)  # 13.9 to 15.9
    assert rate.per_second(15.9) == pytest.approx(1050)
    assert rate.per_second(30.0) == 0.0


def test_a_rate_outlives_a_clock_that_is_set_back() -> None:
    rate = WindowedRate(span=2.0)
    for tenth in range(100):
        rate.add(7200 + tenth / 10)
    for tenth in range(100):
        rate.add(3600 + tenth / 10)
    assert rate.per_second(3609.9) == pytest.approx(10.5)


def test_rate_is_read_while_another_thread_adds() -> None:
    """The status line is made on another thread than the one that counts."""
    rate, failures = WindowedRate(span=1e9), []
    over = threading.Event()

    def read() -> None:
        try:
            while not over.is_set():
                rate.total(1.0)
        except Exception as error:
            failures.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        reader = threading.Thread(target=read)
        reader.start()
        for index in range(3_000):
            rate.add(index * 1e-3)
    finally:
        sys.setswitchinterval(interval)
        over.set()
        reader.join(10)
    assert not failures


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40), st.floats(0, 100))
def test_percentile_is_nearest_rank(values: list[float], percent: float) -> None:
    window = WindowedValues(size=20)
    for value in values:
        window.add(value)
    kept = values[-20:]
    assert window.percentile(percent) == np.percentile(kept, percent, method="inverted_cdf")


def test_percentiles_of_little() -> None:
    window = WindowedValues()
    assert window.median is None
    for value in (4.0, 1.0, 2.0, 3.0):
        window.add(value)
    assert (window.percentile(0), window.median, window.percentile(95)) == (1.0, 2.0, 4.0)


def test_lines_file(tmp_path: Path) -> None:
    JsonLines(None).write({"a": 1})
    with pytest.raises(SemcallError, match="choose another --stats file"):
        JsonLines(tmp_path / "absent" / "stats.jsonl")


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 20), st.floats(0, 1))
def test_runs_cover_the_mask_exactly(seed: int, rows: int, columns: int, density: float) -> None:
    mask = np.random.default_rng(seed).random((rows, columns)) < density
    drawn = np.zeros((rows, columns), int)
    for row, first, end in row_runs(mask):
        assert end > first
        drawn[row, first:end] += 1
        assert first == 0 or not mask[row, first - 1]
        assert end == columns or not mask[row, end]
    assert np.array_equal(drawn, mask.astype(int))


@pytest.mark.parametrize(
    ("size", "shape"), [((1280, 720), (45, 80)), ((640, 360), (23, 40)), ((16, 16), (1, 1)), ((18, 34), (3, 2))]
)
def test_grid_covers_the_picture(size: tuple[int, int], shape: tuple[int, int]) -> None:
    assert grid_shape(*size) == shape
    mask = np.zeros(shape, np.bool_)
    mask[-1, -1] = True
    pixels = mask_to_pixels(mask, *size)
    assert pixels.shape == size[::-1]
    left, top = (shape[1] - 1) * 16, (shape[0] - 1) * 16
    assert pixels[top:, left:].all()
    assert pixels.sum() == (size[0] - left) * (size[1] - top)


def test_picture_knows_its_size_and_planes() -> None:
    i420 = np.arange(24 * 24, dtype=np.uint16).astype(np.uint8).reshape(24, 24)
    picture = Picture(i420, 0, 0)
    assert size_of(i420) == (picture.width, picture.height) == (24, 16)
    luma, chroma = planes(i420)
    assert luma.shape == (16, 24)
    assert chroma.shape == (2, 8, 12)
    flat = i420.reshape(-1)
    assert np.array_equal(chroma[0].reshape(-1), flat[16 * 24 : 20 * 24])
    assert np.array_equal(chroma[1].reshape(-1), flat[20 * 24 :])
    chroma[1, 0, 0] = 7  # a view
    assert i420[20, 0] == 7


def test_colours_there_and_back() -> None:
    bgr = np.zeros((33, 65, 3), np.uint8)  # odd: loses a row and a column
    bgr[:, :32], bgr[:, 32:] = (40, 80, 200), (210, 120, 30)
    i420 = i420_from_bgr(bgr)
    assert i420.shape == (48, 64)
    assert i420[0, 0] == pytest.approx(16 + 0.257 * 200 + 0.504 * 80 + 0.098 * 40, abs=1)  # BT.601, limited range
    back = bgr_from_i420(i420)
    assert np.abs(back.astype(int) - bgr[:32, :64]).max() <= 4
    bgra = bgra_from_i420(i420)
    assert np.array_equal(bgra[..., :3], back)
    assert (bgra[..., 3] == 255).all()


def test_demo_clip_follows_from_its_index() -> None:
    one, other = AstronautClip((160, 90), 25), AstronautClip((160, 90), 25)
    assert one.size == (160, 90)
    assert np.array_equal(one.picture(33), other.picture(33))
    moved = np.abs(one.picture(0)[:90].astype(int) - one.picture(12)[:90])
    assert moved.mean() > 2  # moves, noise alone would be 2.3 at most
    assert AstronautClip((161, 91)).picture(0).shape == (135, 160)
    slow, fast = AstronautClip((160, 90), 15), AstronautClip((160, 90), 30)
    difference = np.abs(slow.picture(14)[:90].astype(int) - fast.picture(28)[:90])
    assert difference.max() <= 1  # the same second (and the same noise field: 14 and 28 are multiples of 7)
