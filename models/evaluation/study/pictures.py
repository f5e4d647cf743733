"""Contact sheets of a study, one for each clip, like the paper's Figures 3 to 5: details of the face side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from models.evaluation.detector import FILE, ReferenceDetector
from models.evaluation.study.cells import coded_path
from models.evaluation.study.coding import read_masks, stats_path
from models.evaluation.study.measure import Box, around, decoded, face_box, judged
from shared.clips import Clip
from shared.picture import bgr_from_i420, size_of
from shared.restorer import Restorer

Bgr = NDArray[np.uint8]

KBPS, SHARE = 400, 15
"""Of the coded columns, as in the paper's figures."""
_TILE, _GAP, _HEADER = 300, 4, 26
_DETAIL = 0.42  # a detail's side over that of the face's box
_QUALITY = 88  # of the JPEG: the sheets are to be looked at, not measured


def draw_sheet(clip: Path, plain: Path, shared: Path, restorer: Path | None, data: Path, out: Path) -> bool:
    """Write a JPEG sheet of a clip's middle picture: source, plain, with a share, and restored.

    `plain`, `shared`: coded files; `restorer`: an ONNX file, None leaves its column out; `data`: where a detector's
    weights may be, to find eyes and mouth. Returns False, and writes nothing, where nobody is in view.
    """
    masks = read_masks(stats_path(shared))
    numbers = judged(len(masks))
    if not numbers:
        return False
    number = numbers[len(numbers) // 2]
    first = dict(Clip(clip).pictures({number}))[number]
    box = face_box(masks[number], *size_of(first))
    if box is None:
        return False
    i420, qp = decoded(shared, frozenset({number}))[number]
    columns = [
        ("source", bgr_from_i420(first)),
        (f"plain, {KBPS}k", bgr_from_i420(decoded(plain, frozenset({number}))[number][0])),
        (f"share {SHARE}%, {KBPS}k", bgr_from_i420(i420)),
    ]
    if restorer is not None:
        columns.append((f"... restored ({restorer.stem})", bgr_from_i420(Restorer(restorer).restore(i420, qp))))
    places = [None, *details(columns[0][1], box, data)]
    rows = [np.hstack([_padded(_tile(picture, place)) for _, picture in columns]) for place in places]
    header = np.hstack([_title(title) for title, _ in columns])
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet = np.vstack([header, *rows])
    out.write_bytes(cv2.imencode(".jpg", sheet, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes())
    return True


def details(bgr: Bgr, box: Box, data: Path) -> list[Box]:
    """Square crops of eyes, mouth and hair: by a detector's landmarks, else where they are in most faces."""
    left, top, right, bottom = box
    side = int(_DETAIL * min(right - left, bottom - top))
    eyes, mouth = ((left + right) / 2, top + 0.38 * (bottom - top)), ((left + right) / 2, top + 0.66 * (bottom - top))
    model = next((path for path in (data / FILE, data / "weights" / FILE) if path.exists()), None)
    found = ReferenceDetector(model).find(bgr) if model is not None else np.zeros((0, 15), np.float32)
    if len(found):
        x, y = found[int(np.argmax(found[:, 3])), 4:14].reshape(5, 2).astype(float).T
        eyes, mouth = (x[:2].mean(), y[:2].mean()), (x[3:].mean(), y[3:].mean())
    hair = 2.2 * eyes[0] - 1.2 * mouth[0], 2.2 * eyes[1] - 1.2 * mouth[1]  # above the eyes, along the face's axis
    height, width = bgr.shape[:2]
    side = max(16, min(side, height, width))
    return [around(place, (side, side), width, height) for place in (eyes, mouth, hair)]


def draw_sheets(
    clips: Mapping[str, Path],
    keys: Mapping[tuple[str, int], str],
    restorer: Path | None,
    cache: Path,
    data: Path,
    folder: Path,
) -> dict[str, Path]:
    """Sheets of `clips` (by name) in `folder`, by clip's name. `keys`: of codings by clip and share, at 400 kb/s."""
    drawn = {}
    for name, path in clips.items():
        if not {(name, 0), (name, SHARE)} <= set(keys):
            continue
        plain, shared = (coded_path(cache, keys[name, share]) for share in (0, SHARE))
        sheet = folder / f"{name}.jpg"
        if plain.exists() and shared.exists() and draw_sheet(path, plain, shared, restorer, data, sheet):
            drawn[name] = sheet
    return drawn


def _tile(picture: Bgr, place: Box | None) -> Bgr:
    if place is not None:
        part = picture[place[1] : place[3], place[0] : place[2]]
        return np.asarray(cv2.resize(part, (_TILE, _TILE), interpolation=cv2.INTER_CUBIC), np.uint8)
    height = max(1, round(picture.shape[0] * _TILE / picture.shape[1]))
    return np.asarray(cv2.resize(picture, (_TILE, height), interpolation=cv2.INTER_AREA), np.uint8)


def _padded(tile: Bgr) -> Bgr:
    white = (255, 255, 255)
    return np.asarray(cv2.copyMakeBorder(tile, 0, _GAP, 0, _GAP, cv2.BORDER_CONSTANT, value=white), np.uint8)


def _title(text: str) -> Bgr:
    strip = np.full((_HEADER, _TILE + _GAP, 3), 255, np.uint8)
    cv2.putText(strip, text, (4, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (40, 40, 40), 1, cv2.LINE_AA)
    return strip
