"""`semcall send`: one picture's way from the source to the wire.

capture thread -> Latest -> encode thread (optical flow, x264) -> asyncio thread: track -> aiortc -> SRTP
                              now and then \\-> Latest -> segment thread (parser) -> Latest -^
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
from aiortc import RTCPeerConnection, RTCRtpSender

from sender.capture import CaptureThread, Source, open_source
from sender.encoder import warm_up
from sender.face import FaceSegmenter, Parser
from sender.live import EncodeOptions, EncodeThread
from sender.parser import FaceOptions
from sender.rate import KeyframeGate
from sender.track import AccessUnitTrack, attach_encoder
from shared.errors import SemcallError
from shared.lines import require_writable
from shared.mailbox import Latest
from shared.peer import (
    LoopThread,
    close_peer,
    create_peer,
    parse_ice_server,
    prefer_h264,
    video_transceiver,
    wait_connected,
)
from shared.picture import Picture
from shared.signalling_links import naked
from shared.signalling_listen import server_tls
from shared.signals import interruptible
from shared.whep_server import WhepServer
from shared.whip_client import WhipClient

_MEDIA_TIMEOUT = 20.0  # seconds from the answer to a connected media path
_SILENCE = 10.0  # seconds without receiver reports after which the receiver counts as gone
_LISTEN = 0.5  # seconds between looks at them
_HANG_UP = 4.0  # seconds that hanging up may take when the receiver says nothing

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SendOptions:
    """What `semcall send` was asked for. `timeout`: seconds to wait for a receiver; `seconds`: length of the call.

    `look`: where nobody answers at `to`, take the only receiver of the local network. `listen`: host and port to wait
    for viewers at, instead of calling `to`; `token` is then what they must show. Only for that: `once`: end with the
    first viewer; `replace`: a new viewer takes the place of the old; `cert`, `key`: PEM files for https.
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
    encode: EncodeOptions = field(default_factory=EncodeOptions)
    face: FaceOptions = field(default_factory=FaceOptions)


def send(
    options: SendOptions,
    say: Callable[[str], None],
    status: Callable[[str], None],
    ready: Callable[[str], None] = lambda _url: None,
) -> None:
    """Hold one call, or with `listen` one after the other; Ctrl-C (KeyboardInterrupt) and SIGTERM end it cleanly.

    `say` gets lines for the user, `status` a line about the running call twice a second, `ready` the endpoint's URL
    once it listens for viewers. Raises SemcallError for everything the user can mend.
    """
    cv2.setNumThreads(1)  # its pool would fight x264 and the parser for the cores
    client = WhipClient(options.to, options.token) if options.listen is None else None
    stage = _Stage(options) if client is None else None
    for server in options.ice_servers:
        parse_ice_server(server)
    require_writable(options.encode.stats)
    parser = options.face.open()
    try:
        with interruptible(), LoopThread() as loop:
            source = open_source(options.source, options.size, options.fps)
            warm_up()
            if stage is not None:
                stage.play(source, parser, loop, say, status, ready)
                return
            call = _Call(options, client, source, parser, loop)
            try:
                name = loop.call(call.connect(say))
                say(f"Connected to {name}: sending {source.size[0]}x{source.size[1]} at {source.fps:.3g} fps.")
                call.run(say, status)
                say(call.end)
            finally:
                call.close()
    except KeyboardInterrupt:
        say("Ended.")


class _Call:
    """One call: with the receiver that `client` calls, or, without one, with the viewer who came."""

    def __init__(
        self,
        options: SendOptions,
        client: WhipClient | None,
        source: Source,
        parser: Parser | None,
        loop: LoopThread,
    ) -> None:
        self._options, self._client, self._source = options, client, source
        self._parser, self._loop = parser, loop
        self._other = "receiver" if client is not None else "viewer"
        self._segmenter: FaceSegmenter | None = None
        self._peer: RTCPeerConnection | None = None
        self._track: AccessUnitTrack | None = None
        self._gate = KeyframeGate()
        self._over = threading.Event()
        self._capture: CaptureThread | None = None
        self._encode: EncodeThread | None = None
        self._listener: asyncio.Task[None] | None = None
        self.end = "The call has ended."
        """One sentence on why."""

    async def connect(self, say: Callable[[str], None]) -> str:
        """Wait for the receiver, agree on H.264 with it and bring the media path up. Returns its address."""
        assert self._client is not None
        if self._options.look:
            from shared.signalling_discovery import look_around  # only where it is needed

            self._client = await look_around(self._client, self._options.token, say)
        client = self._client
        wanted = f"Waiting for a receiver at {client.name} (start `semcall receive` there)."
        await client.wait_for_endpoint(self._options.timeout, lambda: say(wanted))
        if client.ice_servers:
            say(f"The receiver names ICE servers, used where --ice-server names none: {naked(client.ice_servers)}.")
        peer = create_peer(self._options.ice_servers + client.ice_servers)
        prefer_h264(peer.addTransceiver("video", direction="sendonly"))
        self.attach(peer)
        await client.publish(peer)
        await wait_connected(peer, _MEDIA_TIMEOUT)
        self.listen()
        return client.name

    def attach(self, peer: RTCPeerConnection) -> None:
        """Send on the video of `peer`, whose offer or answer is yet to be made, and follow its state."""
        self._peer = peer
        track = self._track = AccessUnitTrack()
        sender = video_transceiver(peer).sender
        sender.replaceTrack(track)
        attach_encoder(sender, self._gate.request, lambda _bitrate: None)

        @peer.on("connectionstatechange")
        def _state_changed() -> None:
            if peer.connectionState in ("failed", "closed"):
                lost = peer.connectionState == "failed"
                other = self._other
                self._finish(f"The connection to the {other} is lost." if lost else f"The {other} has hung up.")

    def listen(self) -> None:
        """Begin to watch for the other end's reports; called in the loop, once the connection stands."""
        assert self._peer is not None
        self._listener = asyncio.ensure_future(self._listen(video_transceiver(self._peer).sender))

    def run(self, say: Callable[[str], None], status: Callable[[str], None]) -> None:
        """Send until the peer, the source or the clock ends the call. Raises SemcallError when a part of it fails."""
        assert self._track is not None
        track, loop = self._track, self._loop
        pictures: Latest[Picture] = Latest()
        segmenter = self._segmenter = FaceSegmenter(self._parser)

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
        """End the call at the other end and here; bounded to a few seconds."""
        if self._segmenter is not None:
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
                self._finish(f"Nothing came from the {self._other} for {_SILENCE:.0f} s: the call has ended.")

    async def _hang_up(self) -> None:
        if self._listener is not None:
            self._listener.cancel()
        if self._track is not None:
            self._track.finish()
        if self._client is not None:
            await self._client.close()
        if self._peer is not None:
            await close_peer(self._peer)


class _Stage:
    """Waits for viewers and plays to one after the other (`semcall send --listen`)."""

    def __init__(self, options: SendOptions) -> None:
        self._options = options
        self._new_call: Callable[[], _Call]
        self._came: queue.SimpleQueue[_Call] = queue.SimpleQueue()
        self._server = WhepServer(
            self._call_began,
            token=options.token,
            ice_servers=options.ice_servers,
            replace=options.replace,
            tls=server_tls(options.cert, options.key),
            place_options=("--listen", "--listen"),
        )

    def play(
        self,
        source: Source,
        parser: Parser | None,
        loop: LoopThread,
        say: Callable[[str], None],
        status: Callable[[str], None],
        ready: Callable[[str], None],
    ) -> None:
        """Until Ctrl-C, or with `once` to the end of the first call."""
        assert self._options.listen is not None
        self._new_call = lambda: _Call(self._options, None, source, parser, loop)
        loop.call(self._server.start(*self._options.listen))
        try:
            ready(self._server.url)
            while True:
                call = self._next()
                try:
                    say(f"A viewer has come: sending {source.size[0]}x{source.size[1]} at {source.fps:.3g} fps.")
                    call.run(say, status)
                finally:
                    call.close()
                if self._options.once:
                    say(call.end)
                    return
                say(f"{call.end} Waiting for a viewer at {self._server.url}")
                status("Waiting for a viewer")
        finally:
            with contextlib.suppress(TimeoutError):  # the process ends anyway
                loop.call(self._server.stop(), timeout=2)

    def _next(self) -> _Call:
        while True:  # not one endless wait: on Windows that would not hear Ctrl-C
            with contextlib.suppress(queue.Empty):
                return self._came.get(timeout=0.25)

    async def _call_began(self, peer: RTCPeerConnection) -> None:
        call = self._new_call()
        call.attach(peer)

        @peer.on("connectionstatechange")
        def _state_changed() -> None:
            if peer.connectionState == "connected":
                call.listen()
                self._came.put(call)


def _named(error: Exception) -> str:
    """An error as part of a sentence."""
    if isinstance(error, SemcallError):
        return str(error).rstrip(".")
    return ": ".join(filter(None, [type(error).__name__, " ".join(str(error).split())]))
