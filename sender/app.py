"""`semcall send`: one picture's way from the source to the wire.

capture thread -> Latest -> encode thread (optical flow, x264) -> asyncio thread: track -> aiortc -> SRTP
                              now and then \\-> Latest -> segment thread (parser) -> Latest -^
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import cv2
from aiortc import RTCPeerConnection, RTCRtpSender

from sender.capture import CaptureThread, Source, open_source
from sender.encoder import warm_up
from sender.face import FaceSegmenter
from sender.live import EncodeOptions, EncodeThread
from sender.parser import FaceOptions
from sender.rate import KeyframeGate
from sender.track import AccessUnitTrack, attach_encoder
from shared.errors import SemcallError
from shared.lines import require_writable
from shared.mailbox import Latest
from shared.peer import LoopThread, close_peer, create_peer, parse_ice_server, prefer_h264, wait_connected
from shared.picture import Picture
from shared.signals import interruptible
from shared.whip_client import WhipClient

_MEDIA_TIMEOUT = 20.0  # seconds from the answer to a connected media path
_SILENCE = 10.0  # seconds without receiver reports after which the receiver counts as gone
_LISTEN = 0.5  # seconds between looks at them
_HANG_UP = 4.0  # seconds that hanging up may take when the receiver says nothing

log = logging.getLogger(__name__)


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
    face: FaceOptions = field(default_factory=FaceOptions)


def send(options: SendOptions, say: Callable[[str], None], status: Callable[[str], None]) -> None:
    """Hold one call; returns when it ends. Ctrl-C (KeyboardInterrupt) and SIGTERM end it cleanly at any point.

    `say` gets lines for the user, `status` a line about the running call twice a second.
    Raises SemcallError for everything the user can mend.
    """
    cv2.setNumThreads(1)  # its pool would fight x264 and the parser for the cores
    client = WhipClient(options.to, options.token)
    for server in options.ice_servers:
        parse_ice_server(server)
    require_writable(options.encode.stats)
    parser = options.face.open()
    try:
        with interruptible(), LoopThread() as loop:
            source = open_source(options.source, options.size, options.fps)
            warm_up()
            call = _Call(options, client, source, FaceSegmenter(parser), loop)
            try:
                loop.call(call.connect(say))
                say(f"Connected to {options.to}: sending {source.size[0]}x{source.size[1]} at {source.fps:.3g} fps.")
                call.run(say, status)
                say(call.end)
            finally:
                call.close()
    except KeyboardInterrupt:
        say("Ended.")


class _Call:
    def __init__(
        self, options: SendOptions, client: WhipClient, source: Source, segmenter: FaceSegmenter, loop: LoopThread
    ) -> None:
        self._options, self._client, self._source = options, client, source
        self._segmenter, self._loop = segmenter, loop
        self._peer: RTCPeerConnection | None = None
        self._track: AccessUnitTrack | None = None
        self._gate = KeyframeGate()
        self._over = threading.Event()
        self._capture: CaptureThread | None = None
        self._encode: EncodeThread | None = None
        self._listener: asyncio.Task[None] | None = None
        self.end = "The call has ended."
        """One sentence on why."""

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
                lost = peer.connectionState == "failed"
                self._finish("The connection to the receiver is lost." if lost else "The receiver has hung up.")

        await self._client.publish(peer)
        await wait_connected(peer, _MEDIA_TIMEOUT)
        self._listener = asyncio.ensure_future(self._listen(transceiver.sender))

    def run(self, say: Callable[[str], None], status: Callable[[str], None]) -> None:
        """Send until the peer, the source or the clock ends the call. Raises SemcallError when a part of it fails."""
        assert self._track is not None
        track, loop = self._track, self._loop
        pictures: Latest[Picture] = Latest()
        segmenter = self._segmenter

        def coded(access_unit: bytes, ticks: int) -> None:
            loop.post(track.push, access_unit, ticks)

        encode_options = replace(self._options.encode, fps=self._source.fps)
        self._encode = encode = EncodeThread(
            pictures, segmenter, self._gate, coded, lambda: track.congested, encode_options, self._source.size
        )
        self._capture = capture = CaptureThread(self._source, pictures.put, self._over.set)
        encode.start()
        capture.start()
        end = float("inf") if self._options.seconds is None else time.monotonic() + self._options.seconds
        told = False
        try:
            while not self._over.wait(min(0.5, max(end - time.monotonic(), 0.0))):
                status(encode.line())
                if segmenter.error is not None and not told:
                    told = True
                    say(f"The face finder failed ({_named(segmenter.error)}): from now on all is background.")
                if time.monotonic() >= end or encode.error is not None:
                    break
        finally:
            capture.stop()
            capture.join(timeout=1)
            pictures.close()
            encode.join(timeout=1)
            segmenter.close()
            if encode.log_error is not None:
                reason = encode.log_error.strerror or encode.log_error
                say(f"The statistics in {self._options.encode.stats} break off ({reason}).")
            if segmenter.error is not None and not told:
                say(f"The face finder failed ({_named(segmenter.error)}): since then all was background.")
        failure = capture.error or encode.error
        if isinstance(failure, SemcallError):
            raise failure
        if failure is not None:
            log.debug("the call broke off", exc_info=failure)
            raise SemcallError(
                f"Sending failed ({_named(failure)}): call again, and report it if that happens once more."
            ) from failure

    def close(self) -> None:
        """End the call at the receiver and here; bounded to a few seconds."""
        self._segmenter.close()
        with contextlib.suppress(TimeoutError):
            self._loop.call(self._hang_up(), timeout=_HANG_UP)

    def _finish(self, why: str) -> None:
        if not self._over.is_set():
            self.end = why
            self._over.set()

    async def _listen(self, sender: RTCRtpSender) -> None:
        """End the call when receiver reports (RFC 3550 section 6.4) stop: a receiver that was killed says no goodbye.

        ICE would notice only half a minute later. A receiver that never sends reports is left alone.
        """
        newest, heard = None, time.monotonic()
        while True:
            await asyncio.sleep(_LISTEN)
            figures = (await sender.getStats()).values()
            report = next((figure.timestamp for figure in figures if figure.type == "remote-inbound-rtp"), None)
            if report != newest:
                newest, heard = report, time.monotonic()
            elif newest is not None and time.monotonic() - heard > _SILENCE:
                self._finish(f"Nothing came from the receiver for {_SILENCE:.0f} s: the call has ended.")

    async def _hang_up(self) -> None:
        if self._listener is not None:
            self._listener.cancel()
        if self._track is not None:
            self._track.finish()
        await self._client.close()
        if self._peer is not None:
            await close_peer(self._peer)


def _named(error: Exception) -> str:
    """An error as part of a sentence."""
    if isinstance(error, SemcallError):
        return str(error).rstrip(".")
    return ": ".join(filter(None, [type(error).__name__, " ".join(str(error).split())]))
