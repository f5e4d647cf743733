"""A WHIP endpoint (RFC 9725) for one call at a time.

Any WHIP sender can call it: semcall, OBS, FFmpeg, GStreamer, a browser page (from elsewhere only with a token).
"""

from __future__ import annotations

from shared.signalling_role import WHIP
from shared.signalling_server import CallServer


class WhipServer(CallServer):
    """Receives what callers publish; `CallServer` says how. Its path is /whip unless told."""

    role = WHIP
