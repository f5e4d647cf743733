"""What cameras, rooms and links do to a picture: exposure, colour, lamps, defocus, noise, compression."""

from __future__ import annotations

import cv2
import numpy as np

from models.training.face.materials import Plane
from models.training.stills import Image

Chance = np.random.Generator


def degraded(picture: Image, chance: Chance) -> Image:
    """A picture uint8 BGR [h, w, 3] as another camera in other light would have sent it; same geometry."""
    if chance.random() < 0.9:
        picture = _exposed(picture, chance)
    if chance.random() < 0.35:
        picture = _lit_from_a_side(picture, chance)
    dark = chance.random() < 0.1
    if dark:  # an evening before a screen
        picture = _scaled(picture, chance.uniform(0.12, 0.45))
    if chance.random() < 0.3:
        picture = blurred(picture, chance.uniform(0.4, 1.8))
    if dark or chance.random() < 0.4:
        noise = chance.standard_normal(picture.shape, np.float32) * np.float32(chance.uniform(1, 12))
        picture = np.asarray(cv2.add(picture, noise, dtype=cv2.CV_8U), np.uint8)
    if chance.random() < 0.12:
        grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
        picture = np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), np.uint8)
    if chance.random() < 0.4:
        picture = compressed(picture, int(chance.uniform(8, 80)))
    return np.asarray(picture, np.uint8)


def compressed(picture: Image, quality: int) -> Image:
    """Through JPEG at a quality of 1 to 100."""
    coded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)


def blurred(picture: Image, sigma: float) -> Image:
    """Gaussian blur; a wide one at reduced size, which looks the same and costs less."""
    if sigma < 2:
        return np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma), np.uint8)
    height, width = picture.shape[:2]
    step = max(1, int(sigma / 1.5))
    small = cv2.resize(picture, (max(1, width // step), max(1, height // step)), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(cv2.GaussianBlur(small, (0, 0), 1.3), (width, height)), np.uint8)


def complexion(picture: Image, chance: Chance) -> Image:
    """A head's picture with another tone of skin and hair, from very light to very dark."""
    tone = _ramp()
    if chance.random() < 0.7:
        tone = tone ** np.exp(chance.uniform(-0.6, 0.9))
    tone = tone * np.exp(chance.uniform(-0.2, 0.2, 3)) * chance.uniform(0.5, 1.15)
    return _looked_up(picture, tone)


def cloth(size: tuple[int, int], photograph: Image, chance: Chance) -> Plane:
    """Something to wear: a photograph's texture or a colour with folds; float32 BGR [h, w, 3] for (width, height)."""
    width, height = size
    if chance.random() < 0.5:
        return photograph.astype(np.float32)
    folds = chance.standard_normal((max(2, height // 6), max(2, width // 6), 1), np.float32) * 14
    wide = cv2.resize(folds, (width, height), interpolation=cv2.INTER_CUBIC)[..., None]
    colour = np.float32(chance.uniform(0, 255)) + chance.uniform(-50, 50, 3).astype(np.float32)
    return np.asarray(np.clip(colour + wide, 0, 255), np.float32)


def background(photographs: list[Image], size: tuple[int, int], chance: Chance) -> Image:
    """Part of a photograph, turned, mirrored or out of focus now and then; uint8 BGR of (width, height)."""
    width, height = size
    source = photographs[chance.integers(len(photographs))]
    if chance.random() < 0.3:  # on its side or head: another photograph, to a network
        source = np.asarray(np.rot90(source, int(chance.integers(1, 4))), np.uint8)
    rows, columns = source.shape[:2]
    zoom = chance.uniform(0.35, 1) * min(columns / width, rows / height)
    across, down = max(2, int(width * zoom)), max(2, int(height * zoom))
    top, left = chance.integers(rows - down + 1), chance.integers(columns - across + 1)
    part = source[top : top + down, left : left + across]
    how = cv2.INTER_AREA if zoom > 1 else cv2.INTER_LINEAR
    picture = cv2.resize(part, size, interpolation=how)
    if chance.random() < 0.5:
        picture = picture[:, ::-1]
    if chance.random() < 0.3:
        picture = blurred(np.ascontiguousarray(picture), chance.uniform(0.7, 5))
    return np.ascontiguousarray(picture, np.uint8)


def with_skin_coloured_things(picture: Plane, tone: Plane, chance: Chance) -> Plane:
    """Hands, wood, lamps: blobs of about the colour `tone` that are no face; float32 BGR [h, w, 3]."""
    height, width = picture.shape[:2]
    for _ in range(chance.integers(1, 4)):
        blob = np.zeros((height, width), np.uint8)
        x, y = int(chance.uniform(0, width)), int(chance.uniform(0, height))
        if chance.random() < 0.5:
            axes = int(chance.uniform(3, 30)), int(chance.uniform(3, 60))
            cv2.ellipse(blob, (x, y), axes, chance.uniform(0, 180), 0, 360, 1, -1)
        else:
            corners = np.array([x, y]) + chance.uniform(-50, 50, (chance.integers(3, 7), 2))
            cv2.fillPoly(blob, [corners.astype(np.int32)], 1)
        soft = cv2.GaussianBlur(blob.astype(np.float32), (0, 0), 0.7)[..., None]
        shade = chance.standard_normal((6, 10), np.float32) * np.float32(chance.uniform(0, 22))
        wide = cv2.resize(shade, (width, height), interpolation=cv2.INTER_CUBIC)[..., None]
        colour = np.clip(tone + chance.uniform(-15, 15, 3).astype(np.float32) + wide, 0, 255)
        picture = np.asarray(picture * (1 - soft) + colour * soft, np.float32)
    return np.asarray(picture, np.float32)


def _exposed(picture: Image, chance: Chance) -> Image:
    tone = _ramp() ** np.exp(chance.uniform(-0.5, 0.5))
    tone = tone * np.exp(chance.uniform(-0.35, 0.25)) * np.exp(chance.uniform(-0.18, 0.18, 3))
    tone = (tone - 0.5) * chance.uniform(0.7, 1.25) + 0.5
    picture = _looked_up(picture, tone)
    if chance.random() >= 0.6:
        return picture
    vivid = chance.uniform(0.2, 1.5)
    return np.asarray(cv2.transform(picture, (np.eye(3) * vivid + (1 - vivid) / 3).astype(np.float32)), np.uint8)


def _lit_from_a_side(picture: Image, chance: Chance) -> Image:
    height, width = picture.shape[:2]
    angle = chance.uniform(0, 2 * np.pi)
    across = np.cos(angle) * (np.arange(width, dtype=np.float32) / width - 0.5)
    down = np.sin(angle) * (np.arange(height, dtype=np.float32)[:, None] / height - 0.5)
    light = 1 + np.float32(chance.uniform(-0.9, 0.9)) * (across + down)
    return np.asarray(np.clip(picture * light[..., None], 0, 255), np.uint8)


def _scaled(picture: Image, factor: float) -> Image:
    return np.asarray(cv2.convertScaleAbs(picture, alpha=factor), np.uint8)


def _ramp() -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.repeat(np.arange(256)[:, None] / 255, 3, axis=1)


def _looked_up(picture: Image, tone: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Image:
    table = (np.clip(tone, 0, 1) * 255).astype(np.uint8)[None]
    return np.asarray(cv2.LUT(np.ascontiguousarray(picture), table), np.uint8)
