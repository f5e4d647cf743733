"""`semcall send`: one picture's way from the source to the wire.

capture thread -> Latest -> encode thread (owns x264) -> asyncio thread: track -> aiortc -> SRTP
              \\-> Latest -> segment thread -> mask -^
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from aiortc import RTCPeerConnection

from sender.capture import CaptureThread, Source, open_source
from sender.encoder import warm_up
from sender.face import FaceSegmenter
from sender.live import EncodeOptions, EncodeThread
from sender.rate import KeyframeGate
from sender.track import AccessUnitTrack, attach_encoder
from shared.mailbox import Latest
from shared.peer import LoopThread, close_peer, create_peer, prefer_h264, wait_connected
from shared.picture import Picture
from shared.whip_client import WhipClient

_MEDIA_TIMEOUT = 20.0  # seconds from the answer to a connected media path


@dataclass(frozen=True, slots=True)
class SendOptions:
    """What `semcall send` was asked for. `timeout`: seconds to wait for a receiver; `seconds`: length of the call."""

    to: str = "http://127.0.0.1:8787/whip"
    token: str | None = None
    source: str = "0"
    size: tuple[int, int] = (1280, 720)
    fps: float | None = None
    timeout: float = 60.0
    seconds: float | None = None
    ice_servers: tuple[str, ...] = ()
    encode: EncodeOptions = field(default_factory=EncodeOptions)


def send(options: SendOptions, say: Callable[[str], None], status: Callable[[str], None]) -> None:
    """Hold one call; returns when it ends. Ctrl-C (KeyboardInterrupt) ends it cleanly.

    `say` gets lines for the user, `status` a line about the running call twice a second.
    Raises SemcallError for everything the user can mend.
    """
    source = open_source(options.source, options.size, options.fps)
    warm_up()
    with LoopThread() as loop:
        call = _Call(options, source, loop)
        try:
            loop.call(call.connect(say))
            say(f"Connected to {options.to}: sending {source.size[0]}x{source.size[1]} at {source.fps:.3g} fps.")
            call.run(status)
            say("The call has ended.")
        except KeyboardInterrupt:
            say("Call ended.")
        finally:
            call.close()


class _Call:
    def __init__(self, options: SendOptions, source: Source, loop: LoopThread) -> None:
        self._options, self._source, self._loop = options, source, loop
        self._client = WhipClient(options.to, options.token)
        self._peer: RTCPeerConnection | None = None
        self._track: AccessUnitTrack | None = None
        self._gate = KeyframeGate()
        self._over = threading.Event()
        self._capture: CaptureThread | None = None
        self._encode: EncodeThread | None = None

    async def connect(self, say: Callable[[str], None]) -> None:
        """Wait for the receiver, agree on H.264 with it and bring the media path up."""
        wanted = f"Waiting for a receiver at {self._options.to} (start `semcall receive` there)."
        await self._client.wait_for_endpoint(self._options.timeout, lambda: say(wanted))
        peer = self._peer = create_peer(self._options.ice_servers)
        self._track = AccessUnitTrack()
        transceiver = peer.addTransceiver(self._track, direction="sendonly")
        prefer_h264(transceiver)
        attach_encoder(transceiver.sender, self._gate.request, lambda _bitrate: None)

        @peer.on("connectionstatechange")
        def _state_changed() -> None:
            if peer.connectionState in ("failed", "closed"):
                self._over.set()

        await self._client.publish(peer)
        await wait_connected(peer, _MEDIA_TIMEOUT)

    def run(self, status: Callable[[str], None]) -> None:
        """Send until the peer, the source or the clock ends the call."""
        assert self._track is not None
        track, loop = self._track, self._loop
        pictures: Latest[Picture] = Latest()
        segmenter = FaceSegmenter()

        def captured(picture: Picture) -> None:
            pictures.put(picture)
            segmenter.submit(picture)

        def coded(access_unit: bytes, ticks: int) -> None:
            loop.post(track.push, access_unit, ticks)

        self._encode = encode = EncodeThread(
            pictures, segmenter, self._gate, coded, lambda: track.congested, self._options.encode, self._source.size
        )
        self._capture = capture = CaptureThread(self._source, captured, self._over.set)
        encode.start()
        capture.start()
        left = self._options.seconds
        try:
            while not self._over.wait(0.5 if left is None else min(0.5, max(left, 0.0))):
                status(encode.line())
                left = None if left is None else left - 0.5
                if (left is not None and left <= 0) or encode.error is not None:
                    break
        finally:
            capture.stop()
            capture.join(timeout=1)
            pictures.close()
            encode.join(timeout=1)
            segmenter.close()
        failure = capture.error or encode.error
        if failure is not None:
            raise failure

    def close(self) -> None:
        """End the call at the receiver and here; bounded to about a second."""
        self._loop.call(self._hang_up(), timeout=2)

    async def _hang_up(self) -> None:
        if self._track is not None:
            self._track.finish()
        await self._client.close()
        if self._peer is not None:
            await close_peer(self._peer)
