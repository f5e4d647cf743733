"""Our receive path on one aiortc RTCRtpReceiver: jitter buffer, requests for packets and keyframes, watchdog."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from aiortc import RTCRtpReceiver

from receiver.jitter import AccessUnit, MarkerJitterBuffer
from receiver.keyframes import KeyframeRequests
from receiver.nack import NackSchedule
from receiver.watchdog import MediaWatchdog
from shared.picture import CLOCK_RATE

log = logging.getLogger(__name__)

_TICK = 0.005  # seconds between looks at what is due
_STREAMS = 16  # SSRCs of which figures are kept; a report has room for 31 (RFC 3550 section 6.4.1)


class ReceivePath:
    """Attach before media flows, on the asyncio thread, where `deliver` gets every access unit.

    `on_silence()` is awaited once, when media has been missing for so long that the call counts as gone
    (receiver/watchdog.py). Figures may be read from any thread.
    """

    def __init__(
        self,
        receiver: RTCRtpReceiver,
        deliver: Callable[[AccessUnit], None],
        on_silence: Callable[[], Awaitable[None]],
    ) -> None:
        self._receiver, self._deliver, self._on_silence = receiver, deliver, on_silence
        self.buffer = MarkerJitterBuffer(self._complete)
        self._nack = NackSchedule()
        self._keyframes = KeyframeRequests()
        self.watchdog = MediaWatchdog()
        self._heard = 0  # bytes
        # aiortc queues for its own decoder only what the jitter buffer returns; ours returns nothing.
        receiver._RTCRtpReceiver__jitter_buffer = self.buffer  # type: ignore[attr-defined]
        receiver._RTCRtpReceiver__nack_generator = self._nack  # type: ignore[attr-defined]
        self._task = asyncio.ensure_future(self._run())

    def request_keyframe(self) -> None:
        """Ask the sender for an IDR (PLI, RFC 4585 section 6.3.1), soon. From any thread."""
        self._keyframes.want()

    @property
    def nacks(self) -> int:
        """Packets asked for again, every try counted."""
        return self._nack.requested

    @property
    def recovered(self) -> int:
        """Packets that came after they had been asked for, and in time."""
        return self._nack.recovered

    @property
    def plis(self) -> int:
        """Keyframes asked for."""
        return self._keyframes.sent

    @property
    def skipped(self) -> int:
        """Holes given up, each with its picture."""
        return self.buffer.skipped

    @property
    def rtt(self) -> float | None:
        """Seconds from a request for a packet to its retransmission, smoothed; None before the first."""
        return self._nack.rtt

    @property
    def patience(self) -> float:
        """Seconds that a hole is waited for, as the round trip has it."""
        return self.buffer.patience

    @property
    def silence(self) -> float:
        """Seconds since media came last; before the first, since the call began."""
        return self.watchdog.silence

    @property
    def jitter(self) -> float | None:
        """Interarrival jitter in seconds (RFC 3550 section 6.4.1); None before media."""
        stream = self._stream()
        return None if stream is None else float(stream.jitter) / CLOCK_RATE  # type: ignore[attr-defined]

    @property
    def packets(self) -> int:
        """RTP packets received, without those that were sent again."""
        stream = self._stream()
        return 0 if stream is None else int(stream.packets_received)  # type: ignore[attr-defined]

    @property
    def packets_lost(self) -> int:
        """RTP packets lost on the way (RFC 3550 section 6.4.1): those that were sent again count too."""
        stream = self._stream()
        return 0 if stream is None else max(0, int(stream.packets_lost))  # type: ignore[attr-defined]

    def close(self) -> None:
        """End the timer; call on the asyncio thread."""
        self._task.cancel()

    def _stream(self) -> object | None:
        """aiortc's statistics of the stream that is received; retransmissions are another one."""
        streams = self._receiver._RTCRtpReceiver__remote_streams  # type: ignore[attr-defined]
        found: object | None = streams.get(self.buffer.ssrc)
        return found

    def _forget_streams(self) -> None:
        """aiortc keeps figures of every SSRC that it ever saw, and its timer of reports dies of too many."""
        streams = self._receiver._RTCRtpReceiver__remote_streams  # type: ignore[attr-defined]
        for ssrc in list(streams)[:-_STREAMS]:
            del streams[ssrc]

    def _complete(self, unit: AccessUnit) -> None:
        if unit.keyframe and not unit.tainted:
            self._keyframes.came()
        self._deliver(unit)

    async def _run(self) -> None:
        told = False
        while not self.watchdog.over:
            await asyncio.sleep(_TICK)
            try:
                await self._tick()
            except Exception:  # without the timer nothing would be asked for, nor the end of the call noticed
                if not told:
                    log.warning("the receiver's timer failed", exc_info=True)
                told = True
        await self._on_silence()

    async def _tick(self) -> None:
        if self.buffer.bytes_received != self._heard:
            self._heard = self.buffer.bytes_received
            self.watchdog.heard()
        self.buffer.patience = self._nack.patience
        self.buffer.expire()
        self._forget_streams()
        await self._ask()

    async def _ask(self) -> None:
        if self.buffer.wanted is None or self.buffer.ssrc is None:
            return  # nobody there to ask
        self._nack.forget_before(self.buffer.wanted)
        if (lost := self._nack.due()) and self._nack.ssrc is not None:
            await self._receiver._send_rtcp_nack(self._nack.ssrc, lost)
        coming = self.buffer.keyframe_coming
        if self._keyframes.due(self.buffer.needs_keyframe, self.watchdog.last, coming, self.rtt):
            await self._receiver._send_rtcp_pli(self.buffer.ssrc)
