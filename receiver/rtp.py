"""Our receive path on one aiortc RTCRtpReceiver: jitter buffer, hole deadline, keyframe requests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from aiortc import RTCRtpReceiver

from receiver.jitter import AccessUnit, MarkerJitterBuffer

_TICK = 0.01  # seconds between looks at the hole's deadline
_PLI_GAP = 0.5  # seconds between two keyframe requests: an IDR needs a round trip and its own sending time


class ReceivePath:
    """Attach before media flows, on the asyncio thread, where `deliver` gets every access unit.

    `on_silence(seconds)` is awaited about once a second while nothing arrives after media has begun.
    """

    def __init__(
        self,
        receiver: RTCRtpReceiver,
        deliver: Callable[[AccessUnit], None],
        on_silence: Callable[[float], Awaitable[None]],
    ) -> None:
        self._receiver = receiver
        self.jitter = MarkerJitterBuffer(deliver)
        # aiortc queues for its own decoder only what the jitter buffer returns; ours returns nothing.
        receiver._RTCRtpReceiver__jitter_buffer = self.jitter  # type: ignore[attr-defined]
        self._on_silence = on_silence
        self._keyframe_wanted = False
        self._last_pli = 0.0
        self.plis = 0
        self._task = asyncio.ensure_future(self._run())

    def request_keyframe(self) -> None:
        """Ask the sender for an IDR (PLI, RFC 4585 section 6.3.1), soon. From any thread."""
        self._keyframe_wanted = True

    @property
    def packets_lost(self) -> int:
        """RTP packets that never came, retransmissions included, after RFC 3550's count."""
        streams = self._receiver._RTCRtpReceiver__remote_streams  # type: ignore[attr-defined]
        stream = streams.get(self.jitter.ssrc)
        return max(0, int(stream.packets_lost)) if stream is not None else 0

    def close(self) -> None:
        """End the timer; call on the asyncio thread."""
        self._task.cancel()

    async def _run(self) -> None:
        received, last_change, told = 0, time.monotonic(), 0.0
        while True:
            await asyncio.sleep(_TICK)
            silence = time.monotonic() - last_change
            if self.jitter.bytes_received != received:
                received, last_change, told = self.jitter.bytes_received, time.monotonic(), 0.0
            elif received and silence > told + 1:
                told = silence
                await self._on_silence(silence)
            self.jitter.expire()
            wanted = self._keyframe_wanted or self.jitter.needs_keyframe
            if wanted and self.jitter.ssrc is not None and time.monotonic() - self._last_pli > _PLI_GAP:
                self._keyframe_wanted, self._last_pli = False, time.monotonic()
                self.plis += 1
                await self._receiver._send_rtcp_pli(self.jitter.ssrc)
