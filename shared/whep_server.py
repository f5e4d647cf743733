"""A WHEP endpoint (draft-ietf-wish-whep) for one viewer at a time: semcall, a browser page, GStreamer."""

from __future__ import annotations

from shared.signalling_role import WHEP
from shared.signalling_server import CallServer


class WhepServer(CallServer):
    """Sends to who comes to watch; `CallServer` says how. Its path is /whep unless told.

    `on_call` is to give the video's transceiver a track (`transceiver.sender.replaceTrack`). Viewers make the
    offer; the counter-offers of the draft are not made.
    """

    role = WHEP
