"""How access units of our own encoder enter aiortc: a track that yields packets, an encoder that only packs them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from fractions import Fraction

import av
from aiortc import MediaStreamTrack, RTCRtpSender
from aiortc.codecs.h264 import H264Encoder
from aiortc.mediastreams import MediaStreamError

from shared.picture import CLOCK_RATE

_TIME_BASE = Fraction(1, CLOCK_RATE)
_QUEUE = 8  # access units; more waiting means that the link or the loop is stuck


class AccessUnitTrack(MediaStreamTrack):
    """A video track of coded access units. Belongs to the asyncio thread."""

    kind = "video"

    def __init__(self) -> None:
        super().__init__()
        self._queue: asyncio.Queue[av.Packet[av.stream.Stream] | None] = asyncio.Queue()

    @property
    def congested(self) -> bool:
        """Whether a new picture should rather not be coded: earlier ones have not left yet."""
        return self._queue.qsize() >= _QUEUE

    def push(self, access_unit: bytes, ticks: int) -> None:
        """Queue one access unit; `ticks` is its capture time, 90 kHz. A coded unit is never dropped."""
        packet = av.Packet(access_unit)
        packet.pts, packet.time_base = ticks, _TIME_BASE
        self._queue.put_nowait(packet)

    def finish(self) -> None:
        """End the track after what is queued."""
        self._queue.put_nowait(None)

    async def recv(self) -> av.Packet[av.stream.Stream]:
        """The next access unit; aiortc hands an av.Packet to `pack` instead of `encode`."""
        if self.readyState != "live":
            raise MediaStreamError
        packet = await self._queue.get()
        if packet is None:
            self.stop()
            raise MediaStreamError
        return packet


class PackingEncoder(H264Encoder):
    """Splits access units into RTP payloads (RFC 6184) and tells `on_remb` what the receiver estimates.

    `on_packed` hears the bytes of payload and the number of packets of every access unit, just before they leave.
    Stock aiortc would clamp the target to 500 kb/s and above and re-open its encoder.
    """

    def __init__(
        self, on_remb: Callable[[int], None], on_packed: Callable[[int, int], None] = lambda _bytes, _packets: None
    ) -> None:
        super().__init__()
        self._on_remb, self._on_packed = on_remb, on_packed
        self._remb = 0

    def pack(self, packet: av.Packet[av.stream.Stream]) -> tuple[list[bytes], int]:
        """RTP payloads of one access unit and its RTP timestamp (modulo 2^32)."""
        payloads = self._packetize(self._split_bitstream(bytes(packet)))
        self._on_packed(sum(map(len, payloads)), len(payloads))
        return payloads, (packet.pts or 0) & 0xFFFFFFFF

    @property
    def target_bitrate(self) -> int:
        """The last REMB, bit/s; 0 before the first."""
        return self._remb

    @target_bitrate.setter
    def target_bitrate(self, bitrate: int) -> None:
        self._remb = bitrate
        self._on_remb(bitrate)


def attach_encoder(
    sender: RTCRtpSender,
    on_keyframe_request: Callable[[], None],
    on_remb: Callable[[int], None],
    on_packed: Callable[[int, int], None] = lambda _bytes, _packets: None,
) -> None:
    """Replace the encoder and the keyframe policy of one RTCRtpSender (names guarded in shared/peer.py)."""
    sender._RTCRtpSender__encoder = PackingEncoder(on_remb, on_packed)  # type: ignore[attr-defined]
    sender._send_keyframe = on_keyframe_request  # type: ignore[method-assign]
