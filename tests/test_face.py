"""The face mask: found where the face is, steady, never in the way of the call."""

from __future__ import annotations

import time

import cv2
import numpy as np
import pytest
from skimage import data

from sender.face import Box, FaceSegmenter, FaceTracker, LbpFaceDetector, oval_and_neck
from shared.astronaut import _FACE, AstronautClip
from shared.grid import grid_shape
from shared.picture import Picture, i420_from_bgr, planes


@pytest.fixture(scope="module")
def detector() -> LbpFaceDetector:
    return LbpFaceDetector()


def face_centre(clip: AstronautClip, index: int) -> tuple[float, float]:
    """Where the face's centre in the photograph lies in picture `index`."""
    matrix = clip._view(index / clip.fps)
    x, y = np.linalg.solve(matrix[:, :2], np.array(_FACE) - matrix[:, 2])
    return float(x), float(y)


@pytest.mark.parametrize("size", [(1280, 720), (640, 360), (480, 360)])
def test_finds_the_astronaut(detector: LbpFaceDetector, size: tuple[int, int]) -> None:
    clip = AstronautClip(size)
    zoom = max(size[0], size[1] * 16 / 9) / 430
    for index in (0, 40, 95):
        boxes = detector.detect(planes(clip.picture(index))[0])
        assert boxes
        left, top, width, height = boxes[0]
        x, y = face_centre(clip, index)
        assert left + width / 2 == pytest.approx(x, abs=15 * zoom)  # the head of the photograph is 90 wide
        assert top + height / 2 == pytest.approx(y, abs=15 * zoom)
        assert 50 * zoom < width < 130 * zoom


def test_largest_first(detector: LbpFaceDetector) -> None:
    luma = planes(AstronautClip((640, 360)).picture(0))[0]
    wide = np.full((360, 640), 90, np.uint8)
    wide[:, 280:] = luma[:, 140:500]
    wide[90:270, 50:230] = cv2.resize(luma[:, 140:500], (180, 180), interpolation=cv2.INTER_AREA)
    boxes = detector.detect(wide)
    assert len(boxes) == 2
    assert boxes[0][0] > 280 > boxes[1][0]
    assert boxes[0][2] > 1.5 * boxes[1][2]


@pytest.mark.parametrize("size", [(16, 16), (320, 16), (64, 64)])
def test_tiny_pictures_are_no_trouble(detector: LbpFaceDetector, size: tuple[int, int]) -> None:
    assert detector.detect(np.full(size[::-1], 90, np.uint8)) == []


def test_oval_and_neck_geometry() -> None:
    box: Box = (496, 208, 160, 160)
    mask = oval_and_neck([box], 1280, 720)
    assert mask.shape == grid_shape(1280, 720)
    column, row = (496 + 80) // 16, (208 + 80) // 16
    assert mask[row, column]
    rows, columns = np.nonzero(mask)
    # the oval: 0.46 of the side to either side, 0.62 up; neck to 0.8 below the centre
    assert columns.min() * 16 == pytest.approx(576 - 0.46 * 160, abs=16)
    assert (columns.max() + 1) * 16 == pytest.approx(576 + 0.46 * 160, abs=16)
    assert rows.min() * 16 == pytest.approx(288 - 0.62 * 160, abs=16)
    assert (rows.max() + 1) * 16 == pytest.approx(208 + 160 * 1.3, abs=16)
    widths = mask.sum(axis=1)
    assert widths[rows.max()] < widths[row]  # the neck is narrower than the face
    assert not mask[rows.min(), columns.min()]  # an oval, not its box
    area = np.pi * 0.46 * 0.62 * 160**2 / 256
    assert area < mask.sum() < 1.6 * area


def test_faces_at_the_edge_and_none() -> None:
    assert not oval_and_neck([], 640, 360).any()
    mask = oval_and_neck([(-60, -60, 120, 120), (600, 320, 120, 120)], 640, 360)
    assert mask[0, 0]
    assert mask[-1, -1]
    assert not mask[10, 20]


def test_tracker_is_patient_then_lets_go() -> None:
    tracker = FaceTracker(patience=3)
    box: Box = (100, 100, 80, 80)
    assert tracker.update([box]) == [box]
    assert tracker.update([]) == [box]
    assert tracker.update([]) == [box]
    assert tracker.update([]) == []
    tracker.update([box])
    tracker.update([])
    assert tracker.update([box]) == [box]  # seen again: patience starts anew
    tracker.update([])
    assert tracker.update([]) == [box]


def test_tracker_steadies_a_still_face_and_follows_a_moving_one() -> None:
    tracker = FaceTracker(smoothing=0.5)
    tracker.update([(100, 100, 80, 80)])
    assert tracker.update([(104, 100, 80, 80)]) == [(102, 100, 80, 80)]
    assert tracker.update([(140, 100, 80, 80)]) == [(140, 100, 80, 80)]  # moved: no trailing
    assert tracker.update([(400, 100, 80, 80)])[-1] == (400, 100, 80, 80)  # another face
    assert len(tracker.update([(400, 100, 80, 80)])) == 2


def test_tracker_keeps_two_faces_apart() -> None:
    tracker = FaceTracker(smoothing=0.0)
    one, two = (100.0, 100.0, 80.0, 80.0), (300.0, 100.0, 80.0, 80.0)
    tracker.update([one, two])
    assert tracker.update([two, one]) == [one, two]


def mask_after(segmenter: FaceSegmenter, picture: Picture) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """The mask once the thread has looked at `picture` (which must be one that it takes)."""
    before = segmenter._faces
    segmenter.submit(picture)
    deadline = time.monotonic() + 20
    while segmenter._faces is before and time.monotonic() < deadline:
        time.sleep(0.005)
    assert segmenter._faces is not before
    return segmenter.mask(picture.width, picture.height)


def test_segmenter_gives_the_mask_of_what_it_saw() -> None:
    clip = AstronautClip((640, 360))
    segmenter = FaceSegmenter(every=1)
    try:
        assert not segmenter.mask(640, 360).any()
        mask = mask_after(segmenter, Picture(clip.picture(0), 0, 0))
        assert mask.shape == grid_shape(640, 360)
        x, y = face_centre(clip, 0)
        assert mask[int(y) // 16, int(x) // 16]
        assert 0.03 < mask.mean() < 0.3
        assert segmenter.mask(640, 360) is mask  # drawn once
        other = segmenter.mask(320, 240)  # a size that it has not seen
        assert other.shape == grid_shape(320, 240)
        assert not other.any()
        # another size starts afresh: the old box does not linger where nobody is
        empty = Picture(np.full((360, 320), 128, np.uint8), 0, 1)
        assert not mask_after(segmenter, empty).any()
    finally:
        segmenter.close()
    assert not segmenter._thread.is_alive()


@pytest.mark.parametrize("name", ["coffee", "gravel"])
def test_nobody_gives_an_empty_mask(name: str) -> None:
    image = getattr(data, name)()
    bgr = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if image.ndim == 2 else image[..., ::-1]
    segmenter = FaceSegmenter(every=1)
    try:
        assert not mask_after(segmenter, Picture(i420_from_bgr(np.ascontiguousarray(bgr)), 0, 0)).any()
    finally:
        segmenter.close()


def test_segmenter_looks_at_every_nth_picture() -> None:
    segmenter = FaceSegmenter(every=3)
    segmenter.close()
    taken: list[int] = []

    class Slot:
        closed = True

        def put(self, picture: Picture) -> None:
            taken.append(picture.index)

    segmenter._pictures = Slot()  # type: ignore[assignment]
    for index in range(8):
        segmenter.submit(Picture(np.zeros((24, 16), np.uint8), 0, index))
    assert taken == [0, 3, 6]


def test_a_detector_that_fails_empties_the_mask_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = Picture(AstronautClip((640, 360)).picture(0), 0, 0)
    segmenter = FaceSegmenter(every=1)
    try:
        assert mask_after(segmenter, picture).any()
        failure = cv2.error("out of memory")

        def fail(*_: object) -> list[Box]:
            raise failure

        monkeypatch.setattr(LbpFaceDetector, "detect", fail)
        assert not mask_after(segmenter, picture).any()
        assert segmenter.error is failure
        segmenter.submit(picture)  # harmless
    finally:
        segmenter.close()
