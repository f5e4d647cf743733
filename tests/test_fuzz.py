"""Whatever comes in, nothing breaks and nothing grows: RTP, RTCP, H.264, signalling, tokens.

RTP and RTCP go into two connected peers where the decrypted bytes would, so that all of aiortc that a peer who has
the keys can reach is tried, and our parts in it. What tests/test_whip.py (offers), tests/test_whep.py (raw HTTP
requests, Link headers, DNS-SD) and tests/test_jitter.py (orders of packets) try already is not repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
from collections.abc import Iterator

import av
import numpy as np
import pytest
from aiohttp import web
from aiortc.codecs.h264 import H264PayloadDescriptor
from aiortc.rtp import RtpPacket
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from test_whip import BROWSER_OFFER, http, offer_text, post, receiving

from receiver.decoder import Decoder
from receiver.jitter import AccessUnit, MarkerJitterBuffer
from receiver.rtp import ReceivePath
from sender.encoder import SemanticEncoder
from sender.track import AccessUnitTrack, PackingEncoder, attach_encoder
from shared.astronaut import AstronautClip
from shared.grid import grid_shape
from shared.h264 import H264Error, is_keyframe, nal_units, unescape
from shared.h264_headers import parse_picture_parameters, parse_sequence_parameters, parse_slice_header
from shared.peer import close_peer, create_peer, prefer_h264, video_transceiver, wait_connected
from shared.picture import CLOCK_RATE, Picture
from shared.signalling_offer import check_offer, usable
from shared.signalling_server import FRAGMENT
from shared.stamp import read_stamp
from shared.token import is_token

MOST_PACKETS = 2048
"""What the jitter buffer holds at most, see MarkerJitterBuffer."""
fuzz = settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def coded(count: int) -> list[bytes]:
    """Access units of our own encoder, the first an IDR."""
    size = 160, 96
    clip, encoder = AstronautClip(size), SemanticEncoder(*size, 100e3, 0.15)
    nobody = np.zeros(grid_shape(*size), np.bool_)
    return [
        encoder.encode(Picture(clip.picture(index), index * CLOCK_RATE // 30, index), nobody)[0]
        for index in range(count)
    ]


UNITS = coded(6)


class Call:
    """Two connected peers of this process, with our parts in both ends."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()
        self.units: list[AccessUnit] = []
        self.problems: list[dict[str, object]] = []
        self.ticks = 0
        self.runner.run(self._connect())

    async def _connect(self) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: self.problems.append(context))
        self.sending, self.answering = create_peer(), create_peer()
        prefer_h264(self.sending.addTransceiver("video", direction="sendonly"))
        self.sender = video_transceiver(self.sending).sender
        self.track = AccessUnitTrack()
        self.sender.replaceTrack(self.track)
        attach_encoder(self.sender, lambda: None, lambda _bitrate: None)
        await self.sending.setLocalDescription(await self.sending.createOffer())
        prefer_h264(self.answering.addTransceiver("video", direction="recvonly"))
        self.receiver = video_transceiver(self.answering).receiver
        self.path = ReceivePath(self.receiver, self.units.append, self._silent)
        await self.answering.setRemoteDescription(self.sending.localDescription)
        await self.answering.setLocalDescription(await self.answering.createAnswer())
        await self.sending.setRemoteDescription(self.answering.localDescription)
        await wait_connected(self.sending)
        await wait_connected(self.answering)
        codecs = self.receiver._RTCRtpReceiver__codecs  # type: ignore[attr-defined]
        self.types = sorted(codecs)
        self.h264 = next(number for number, codec in codecs.items() if codec.mimeType == "video/H264")
        repairs = self.receiver._RTCRtpReceiver__rtx_ssrc  # type: ignore[attr-defined]
        self.sources = [1, 2, 0xFFFFFFFF, *repairs, *repairs.values()]
        self.track.push(UNITS[0], 0)
        while not self.units:
            await asyncio.sleep(0.01)

    async def _silent(self) -> None:
        pass

    async def rtp(self, datagrams: list[bytes]) -> None:
        for number, datagram in enumerate(datagrams):
            await self.receiver.transport._handle_rtp_data(datagram, number)
            self.path.buffer.expire()
        await self.path._ask()

    async def rtcp(self, datagrams: list[bytes]) -> None:
        for datagram in datagrams:
            await self.receiver.transport._handle_rtcp_data(datagram)
            await self.sender.transport._handle_rtcp_data(datagram)

    async def works(self) -> bool:
        """Whether a picture still gets through, from x264 to the other end, over the wire."""
        before, self.ticks = len(self.units), self.ticks + 3000
        self.track.push(UNITS[0], self.ticks)
        try:
            async with asyncio.timeout(5):
                while not any(unit.data.endswith(UNITS[0][-40:]) for unit in self.units[before:]):
                    await asyncio.sleep(0.005)
        except TimeoutError:
            return False
        return self.sending.connectionState == self.answering.connectionState == "connected"

    async def close(self) -> None:
        self.path.close()
        self.track.finish()
        await close_peer(self.sending)
        await close_peer(self.answering)


@pytest.fixture(scope="module")
def call() -> Iterator[Call]:
    result = Call()
    yield result
    result.runner.run(result.close())
    result.runner.close()


# RTP

SMALL = st.binary(max_size=30)
PARTS = st.sampled_from([unit[:60] for data in UNITS for unit in nal_units(data)])
"""Beginnings of real NAL units."""


def stap_a(units: list[bytes], lie: int) -> bytes:
    """A STAP-A (RFC 6184 section 5.7.1) whose last length is wrong by `lie`."""
    sizes = [len(unit) for unit in units]
    sizes[-1] = max(0, sizes[-1] + lie)
    return b"\x78" + b"".join(size.to_bytes(2, "big") + unit for size, unit in zip(sizes, units, strict=True))


PAYLOADS = st.one_of(
    SMALL,
    PARTS,
    st.builds(stap_a, st.lists(st.one_of(PARTS, SMALL), min_size=1, max_size=4), st.integers(-3, 70)),
    st.builds(lambda flags, data: bytes([0x7C, flags]) + data, st.integers(0, 255), st.one_of(PARTS, SMALL)),  # FU-A
    st.builds(lambda kind, data: bytes([kind]) + data, st.integers(0, 255), SMALL),
)


@st.composite
def packets(draw: st.DrawFn, types: list[int], sources: list[int]) -> bytes:
    """An RTP datagram: whole, with wild numbers, or with its bytes changed."""
    numbers = st.one_of(st.integers(0, 40), st.sampled_from([0x7FFF, 0x8000, 0xFFFE, 0xFFFF]), st.integers(0, 0xFFFF))
    packet = RtpPacket(
        payload_type=draw(st.sampled_from([*types, 0, 127])),
        marker=draw(st.integers(0, 1)),
        sequence_number=draw(numbers),
        timestamp=draw(st.sampled_from([0, 3000, 0x7FFFFFFF, 0xFFFFFFFF])),
        ssrc=draw(st.sampled_from(sources)),
        payload=draw(PAYLOADS),
    )
    return changed(draw, packet.serialize())


def changed(draw: st.DrawFn, data: bytes) -> bytes:
    how = draw(st.sampled_from(["not", "not", "cut", "byte", "longer"]))
    if how == "cut":
        return data[: draw(st.integers(0, len(data)))]
    if how == "byte" and data:
        at = draw(st.integers(0, min(len(data) - 1, 40)))
        return data[:at] + bytes([draw(st.integers(0, 255))]) + data[at + 1 :]
    return data + draw(SMALL) if how == "longer" else data


@fuzz
@given(data=st.data())
def test_no_rtp_breaks_the_receive_path(call: Call, data: st.DataObject) -> None:
    call.runner.run(call.rtp(data.draw(st.lists(packets(call.types, call.sources), max_size=25))))
    assert len(call.path.buffer._packets) <= MOST_PACKETS
    assert call.problems == []


def test_a_picture_gets_through_after_it(call: Call) -> None:
    assert call.runner.run(call.works())
    assert call.problems == []


@fuzz
@given(st.lists(st.builds(lambda first, rest: bytes([first]) + rest, st.integers(128, 191), st.binary(max_size=60))))
def test_no_bytes_break_rtp_or_rtcp(call: Call, datagrams: list[bytes]) -> None:
    call.runner.run(call.rtp(datagrams))
    call.runner.run(call.rtcp(datagrams))
    assert call.problems == []


@st.composite
def rtcp_packets(draw: st.DrawFn, sources: list[int]) -> bytes:
    """A compound of RTCP packets (RFC 3550 section 6.1, RFC 4585 section 6.1) with true or false lengths."""
    out = b""
    for _ in range(draw(st.integers(1, 3))):
        body = draw(st.binary(max_size=48))
        if draw(st.booleans()):
            body = draw(st.sampled_from([0, *sources])).to_bytes(4, "big") * 2 + body
        if draw(st.booleans()):
            body += bytes(-len(body) % 4)
        words = (len(body) // 4 + draw(st.sampled_from([0, 0, 0, 1, -1]))) & 0xFFFF
        padding = draw(st.sampled_from([0, 0, 0x20]))
        head = bytes([0x80 | padding | draw(st.integers(0, 31)), draw(st.integers(200, 207))])
        out += head + words.to_bytes(2, "big") + body
    return changed(draw, out)


@settings(fuzz, max_examples=100)
@given(data=st.data())
def test_no_rtcp_breaks_either_end(call: Call, data: st.DataObject) -> None:
    call.runner.run(call.rtcp(data.draw(st.lists(rtcp_packets(call.sources), max_size=6))))
    assert call.problems == []


def test_a_picture_gets_through_after_that_too(call: Call) -> None:
    assert call.runner.run(call.works())


def test_a_peer_of_many_sources_neither_fills_memory_nor_ends_the_reports(call: Call) -> None:
    """aiortc would keep figures of each for ever, and report on all of them: its timer died of more than 127."""
    datagrams = [
        RtpPacket(payload_type=call.h264, sequence_number=1, ssrc=1000 + index, payload=b"\x41abc").serialize()
        for index in range(300)
    ]
    call.runner.run(call.rtp(datagrams))
    call.runner.run(asyncio.sleep(2.0))  # reports go out every 1.5 s at least
    assert len(call.receiver._RTCRtpReceiver__remote_streams) <= 16  # type: ignore[attr-defined]
    assert not call.receiver._RTCRtpReceiver__rtcp_task.done()  # type: ignore[attr-defined]
    assert call.runner.run(call.works())


# H.264


@settings(fuzz, max_examples=300)
@given(PAYLOADS, st.lists(st.integers(0, 255), max_size=3))
def test_depacketising_raises_nothing_but_value_error(payload: bytes, cut: list[int]) -> None:
    for data in (payload, payload[: sum(cut)]):
        try:
            _, out = H264PayloadDescriptor.parse(data)
        except ValueError:
            continue
        assert len(out) <= len(data) * 4 + 4  # start codes, at most one for each two bytes


@fuzz
@given(st.integers(0, len(UNITS) - 1))
def test_what_is_packed_is_depacketised(index: int) -> None:
    packet = av.Packet(UNITS[index])
    payloads, _ = PackingEncoder(lambda _bitrate: None).pack(packet)
    together = b"".join(H264PayloadDescriptor.parse(payload)[1] for payload in payloads)
    assert nal_units(together) == nal_units(UNITS[index])


@st.composite
def broken_units(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(UNITS)))
    for _ in range(draw(st.integers(0, 4))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))] + draw(SMALL))


@settings(fuzz, max_examples=120)
@given(st.lists(st.tuples(st.one_of(broken_units(), SMALL), st.booleans(), st.booleans()), max_size=6))
def test_no_access_unit_breaks_the_decoder(units: list[tuple[bytes, bool, bool]]) -> None:
    decoder = Decoder()
    for index, (data, keyframe, tainted) in enumerate(units):
        try:
            for picture in decoder.decode(AccessUnit(data, index * 3000, 0.0, keyframe, tainted)):
                assert picture.qp.shape == grid_shape(picture.width, picture.height)
        except av.FFmpegError:
            pass
    assert decoder.decode(AccessUnit(UNITS[0], 10**6, 0.0, True, False))[0].width == 160


@settings(fuzz, max_examples=300)
@given(st.one_of(st.binary(max_size=120), broken_units()))
def test_parsers_of_h264_say_h264_error(data: bytes) -> None:
    is_keyframe(data)
    read_stamp(data)
    for unit in nal_units(data):
        for parse in (
            parse_sequence_parameters,
            parse_picture_parameters,
            lambda plain: parse_slice_header(plain, {}, {}),
        ):
            with contextlib.suppress(H264Error):
                parse(unescape(unit))


def test_the_jitter_buffer_is_bounded_without_markers_and_with_holes() -> None:
    """A peer that never ends a picture, one that leaves out every other packet, one that jumps."""
    ticks = itertools.count()
    for step, jump in ((1, 0), (2, 0), (1, 97)):
        out: list[AccessUnit] = []
        buffer = MarkerJitterBuffer(out.append, clock=lambda: next(ticks) / 1000)
        for index in range(2500):
            number = (index * step + jump * (index % 7)) & 0xFFFF
            packet = RtpPacket(sequence_number=number, timestamp=index // 30 * 3000, ssrc=5)
            packet._data = b"\0\0\0\1\x41x"
            buffer.add(packet)
            if index % 10 == 0:
                buffer.expire()
            assert len(buffer._packets) <= MOST_PACKETS
            assert len(buffer._came) <= MOST_PACKETS
        assert out == []


# Signalling


@settings(fuzz, max_examples=200)
@given(
    st.one_of(
        st.text(max_size=300), st.lists(st.sampled_from(BROWSER_OFFER.splitlines()), max_size=60).map("\r\n".join)
    )
)
@example("v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF\r\n")
def test_no_offer_gets_more_than_a_sentence(text: str) -> None:
    with contextlib.suppress(web.HTTPBadRequest, web.HTTPUnprocessableEntity):
        offer = check_offer(text)
        assert offer.profile
        assert offer.media


CANDIDATE_WORDS = ("1", "udp", "tcp", "2130706431", "192.0.2.1", "::1", "9", "typ", "host", "-1", "é", "%")


@fuzz
@given(st.one_of(st.text(max_size=80), st.lists(st.sampled_from(CANDIDATE_WORDS)).map(" ".join)))
def test_any_candidate_is_usable_or_not(line: str) -> None:
    assert usable(f"a=candidate:{line}") in (True, False)


@settings(fuzz, max_examples=40)
@given(st.binary(max_size=400), st.sampled_from(["gzip", "deflate", "identity", "br", "x", ""]))
def test_no_encoded_body_breaks_the_endpoint(body: bytes, encoding: str) -> None:
    async def run() -> None:
        async with receiving(token="s3cret") as receiver:
            status, _, text = await post(
                receiver.server.url, body, Authorization="Bearer s3cret", Content_Encoding=encoding
            )
            assert 400 <= status < 500, text
            assert not receiver.server.busy

    asyncio.run(run())


@settings(fuzz, max_examples=6)
@given(st.lists(st.text(max_size=60), max_size=20))
def test_no_fragment_ends_a_call(candidates: list[str]) -> None:
    async def run() -> None:
        async with receiving() as receiver:
            _, headers, _ = await post(receiver.server.url, await offer_text())
            session = receiver.server.url + "/" + headers["Location"].rsplit("/", 1)[1]
            body = "\r\n".join(["a=mid:0", *(f"a=candidate:{line}" for line in candidates)]).encode()
            status, _, _ = await http("PATCH", session, body, Content_Type=FRAGMENT, If_Match=headers["ETag"])
            assert status in (204, 422)  # 422: a line that names another ICE generation
            assert receiver.server.busy

    asyncio.run(run())
    gc.collect()


@settings(fuzz, max_examples=40)
@given(st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=30))
def test_only_the_token_opens(shown: str) -> None:
    async def run() -> None:
        async with receiving(token="s3cret") as receiver:
            status, _, _ = await post(receiver.server.url, "bad", Authorization=f"Bearer {shown}")
            assert status == (400 if shown.strip() == "s3cret" else 401)

    asyncio.run(run())
    assert is_token(shown) == (bool(shown) and all("!" <= sign <= "~" for sign in shown))
