"""What `semcall send` was asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sender.live import EncodeOptions
from sender.parser import FaceOptions

MIN_BITRATE = 100e3  # bit/s; with less nobody is recognised


@dataclass(frozen=True, slots=True)
class SendOptions:
    """What `semcall send` was asked for. `timeout`: seconds to wait for a receiver; `seconds`: length of the call.

    `look`: where nobody answers at `to`, take the only receiver of the local network. `listen`: host and port to wait
    for viewers at, instead of calling `to`; `token` is then what they must show. Only for that: `once`: end with the
    first viewer; `replace`: a new viewer takes the place of the old; `cert`, `key`: PEM files for https. `metrics`:
    `[HOST:]PORT`, for Prometheus. `min_bitrate`: bit/s of video that a poor link is asked to carry at least; what
    `encode` asks for where that is less.
    """

    to: str = "http://127.0.0.1:8787/whip"
    token: str | None = None
    source: str = "0"
    size: tuple[int, int] = (1280, 720)
    fps: float | None = None
    timeout: float = 60.0
    seconds: float | None = None
    ice_servers: tuple[str, ...] = ()
    look: bool = False
    listen: tuple[str, int] | None = None
    once: bool = False
    replace: bool = False
    cert: Path | None = None
    key: Path | None = None
    metrics: str | None = None
    min_bitrate: float = MIN_BITRATE
    encode: EncodeOptions = field(default_factory=EncodeOptions)
    face: FaceOptions = field(default_factory=FaceOptions)
