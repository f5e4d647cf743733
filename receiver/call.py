"""What belongs to one connection at the receiving end: jitter buffer, decoder, watchdog."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiortc import RTCPeerConnection

from receiver.freeze import OnLoss
from receiver.jitter import AccessUnit
from receiver.picture import DecodedPicture
from receiver.pipeline import DecodeThread
from receiver.rtp import ReceivePath
from shared.peer import video_transceiver
from shared.stats import Stats


class Call:
    """Made on the asyncio thread before media flows.

    `deliver` gets every decoded picture that is to be seen, on the decode thread; `received` the bytes of every
    access unit; `silent` is awaited with the seconds without media when the call counts as gone.
    """

    def __init__(
        self,
        peer: RTCPeerConnection,
        deliver: Callable[[DecodedPicture], None],
        on_loss: OnLoss,
        received: Callable[[int], None],
        silent: Callable[[float], Awaitable[None]],
    ) -> None:
        self._received, self._gone = received, silent
        self.path = ReceivePath(video_transceiver(peer).receiver, self._arrived, self._silent)
        self.decode = DecodeThread(deliver, self.path.request_keyframe, on_loss)
        self.decode.start()
        self.began = False
        """Whether media has come."""
        self._closed = False

    def stats(self) -> Stats:
        """What is known of the connection and the decoder. From any thread."""
        path = self.path
        return Stats(
            role="receive",
            state=path.watchdog.sentence() or "live",
            face_share=self.decode.decoder.face_share,
            packets=path.packets,
            lost=path.packets_lost,
            nacks=path.nacks,
            retransmitted=path.recovered,
            plis=path.plis,
            jitter_ms=None if path.jitter is None else path.jitter * 1e3,
            rtt_ms=None if path.rtt is None else path.rtt * 1e3,
            held=self.decode.held,
            skipped=path.skipped,
        )

    def close(self) -> None:
        """End the timers and the decoder; call on the asyncio thread."""
        self._closed = True
        self.path.close()
        self.decode.close()

    def _arrived(self, unit: AccessUnit) -> None:
        if self._closed:  # a peer connection that takes long to close goes on receiving
            return
        self.began = True
        self._received(len(unit.data))
        self.decode.submit(unit)

    async def _silent(self) -> None:
        await self._gone(self.path.silence)
