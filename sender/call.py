"""One call of the sending end: its connection, its threads, how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from aiortc import RTCPeerConnection, RTCRtpSender
from aiortc.stats import RTCStats

from sender.capture import CaptureThread, Source
from sender.control import SendControl
from sender.face import FaceSegmenter, Parser
from sender.figures import call_stats
from sender.live import EncodeThread
from sender.options import SendOptions
from sender.rate import KeyframeGate
from sender.track import AccessUnitTrack
from shared.errors import SemcallError
from shared.mailbox import Latest
from shared.peer import (
    LoopThread,
    close_peer,
    create_peer,
    prefer_h264,
    video_transceiver,
    wait_connected,
)
from shared.picture import Picture
from shared.signalling_links import naked
from shared.stats import Stats
from shared.whip_client import WhipClient

_MEDIA_TIMEOUT = 20.0  # seconds from the answer to a connected media path
_SILENCE = 10.0  # seconds without receiver reports after which the receiver counts as gone
_LISTEN = 0.5  # seconds between looks at them
_HANG_UP = 4.0  # seconds that hanging up may take when the receiver says nothing

log = logging.getLogger(__name__)


class Call:
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
        self.control: SendControl | None = None
        """Rate, retransmissions and keyframe requests, once there is a peer."""
        self._reports: list[RTCStats] = []
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
        bitrate = self._options.encode.bitrate
        self.control = SendControl(sender, self._gate, bitrate, min(self._options.min_bitrate, bitrate))

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

    @property
    def over(self) -> bool:
        """Whether the other end has gone, or the source has ended."""
        return self._over.is_set()

    def run(self, say: Callable[[str], None], status: Callable[[Stats], None], append: bool = False) -> None:
        """Send until the peer, the source or the clock ends the call. Raises SemcallError when a part of it fails.

        `append`: the statistics go after those of an earlier call.
        """
        assert self._track is not None
        track, loop = self._track, self._loop
        pictures: Latest[Picture] = Latest()
        segmenter = self._segmenter = FaceSegmenter(self._parser)

        def coded(access_unit: bytes, ticks: int) -> None:
            loop.post(track.push, access_unit, ticks)

        encode_options = replace(self._options.encode, fps=self._source.fps, append=append)
        self._encode = encode = EncodeThread(
            pictures,
            segmenter,
            self._gate,
            coded,
            lambda: track.congested,
            encode_options,
            self._source.size,
            target=self._target,
            usable=self._usable,
            even=lambda: self.control is not None and self.control.tight,
        )
        encode.figures = self.stats
        self._capture = capture = CaptureThread(self._source, pictures.put, self._over.set)
        encode.start()
        capture.start()
        end = float("inf") if self._options.seconds is None else time.monotonic() + self._options.seconds
        told = False
        try:
            while not self._over.wait(min(0.5, max(end - time.monotonic(), 0.0))):
                status(self.stats())
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

    def stats(self) -> Stats:
        """The call's figures now. From any thread."""
        coded = Stats(role="send", state="starting") if self._encode is None else self._encode.stats()
        return call_stats(coded, self._reports, self.control)

    def _target(self) -> float:
        return self._options.encode.bitrate if self.control is None else self.control.target

    def _usable(self) -> float:
        return self._options.encode.bitrate if self.control is None else self.control.usable

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
            figures = self._reports = list((await sender.getStats()).values())
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


def _named(error: Exception) -> str:
    """An error as part of a sentence."""
    if isinstance(error, SemcallError):
        return str(error).rstrip(".")
    return ": ".join(filter(None, [type(error).__name__, " ".join(str(error).split())]))
