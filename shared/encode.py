"""What others ask of the sender's encoder: `models` may not import `sender`, so the command line hands it over."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol

ShareMode = Literal["floor", "exact"]
"""The face's share of the bits is at least what was asked, and the face never coarser than the rest; or just that."""


class Encode(Protocol):
    """The sender's encoder on a file: `sender.offline.encode_at`, told where faces are sought.

    Who hands it over may have set other defaults.
    """

    def __call__(
        self,
        source: Path,
        out: Path,
        stats: Path,
        bitrate: float,
        share: float,
        seconds: float,
        *,
        mode: ShareMode = "exact",
        size: tuple[int, int] = (1280, 720),
        keyframe_interval: float | None = None,
    ) -> None:
        """Code up to `seconds` of `source` at `bitrate` bit/s to `out`, with a JSON line per picture in `stats`.

        `share`: 0..1; `size`: the picture fits into it, turned where upright; `keyframe_interval`: seconds, None for
        the first picture alone.
        """
        ...
