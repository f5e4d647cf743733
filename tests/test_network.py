"""Loss patterns end to end: both ends' media path on real peers, with the virtual link between them.

What is asserted is counted, never timed, and leaves room for better policies.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator

import aiohttp
import numpy as np
import pytest
from aiohttp import web
from aiortc import RTCPeerConnection

from benchmarks.link import LinkSpec
from benchmarks.namespaces import Namespaces, namespaces_problem
from benchmarks.relay import Relay, WhipProxy, candidate_of, connect, is_media, with_candidate
from receiver.jitter import AccessUnit
from receiver.rtp import ReceivePath
from sender.control import SendControl
from sender.encoder import SemanticEncoder
from sender.rate import KeyframeGate
from sender.track import AccessUnitTrack
from shared.astronaut import AstronautClip
from shared.errors import SemcallError
from shared.grid import grid_shape
from shared.peer import create_peer, prefer_h264, video_transceiver, wait_connected
from shared.picture import CLOCK_RATE, Picture
from shared.stamp import Stamp, read_stamp, write_stamp
from shared.whip_client import WhipClient
from shared.whip_server import WhipServer

SIZE = 320, 192
PERIOD = 1 / 50  # seconds of a picture; faster than a call's, for time's sake
START = 1_700_000_000 * CLOCK_RATE
PATIENCE = 10.0  # seconds after which a test gives up
TRIP = 0.015


class Call:
    """A sender and a receiver with `relay` between them. Every picture is told by the stamp in it."""

    def __init__(self, forward: LinkSpec, back: LinkSpec) -> None:
        self.relay = Relay(forward, back)
        self.caller, self.callee = create_peer(), create_peer()
        self.track, self.gate = AccessUnitTrack(), KeyframeGate()
        prefer_h264(self.caller.addTransceiver("video", direction="sendonly"))
        prefer_h264(self.callee.addTransceiver("video", direction="recvonly"))
        sender = video_transceiver(self.caller).sender
        sender.replaceTrack(self.track)
        SendControl(sender, self.gate, 400e3, 100e3)
        self.units: list[AccessUnit] = []
        self.path = ReceivePath(video_transceiver(self.callee).receiver, self._came, self._silent)
        self._encoder, self._clip = SemanticEncoder(*SIZE, 400e3, 0.0, fps=1 / PERIOD), AstronautClip(SIZE)
        self._mask = np.zeros(grid_shape(*SIZE), np.bool_)
        self.idrs: list[int] = []
        """Which pictures were coded as keyframes."""
        self.count = 0

    async def begin(self) -> None:
        await connect(self.caller, self.callee, self.relay)
        await asyncio.gather(wait_connected(self.caller), wait_connected(self.callee))

    async def send(self, count: int) -> None:
        """Code and send `count` pictures, then wait for the last of them, at most `PATIENCE`."""
        for _ in range(count):
            index, self.count = self.count, self.count + 1
            ticks = START + round(index * PERIOD * CLOCK_RATE)
            picture = Picture(self._clip.picture(index), ticks, index)
            unit, stats = self._encoder.encode(picture, self._mask, self.gate.due())
            self.idrs += [index] if stats.keyframe else []
            self.track.push(write_stamp(Stamp(ticks, None)) + unit, ticks)
            await asyncio.sleep(PERIOD)
        for _ in range(round(PATIENCE / 0.02)):
            if self.arrived and self.arrived[-1] == self.count - 1:
                return
            await asyncio.sleep(0.02)

    @property
    def arrived(self) -> list[int]:
        """The pictures that arrived, in this order."""
        return [self._index(unit) for unit in self.units]

    @property
    def clean(self) -> list[int]:
        """Those of them that can be decoded without damage."""
        return [self._index(unit) for unit in self.units if not unit.tainted]

    async def end(self) -> None:
        self.path.close()
        self.track.finish()
        await asyncio.gather(self.caller.close(), self.callee.close())
        self.relay.close()

    def _came(self, unit: AccessUnit) -> None:
        if read_stamp(unit.data) is None:  # its first packet is missing, parameter sets and all: no decoder takes it
            self.path.request_keyframe()
        else:
            self.units.append(unit)

    async def _silent(self, *_: object) -> None:
        pass

    @staticmethod
    def _index(unit: AccessUnit) -> int:
        stamp = read_stamp(unit.data)
        assert stamp is not None
        return round((stamp.ticks - START) / CLOCK_RATE / PERIOD)


@pytest.fixture
async def across(request: pytest.FixtureRequest) -> AsyncIterator[Call]:
    """A call across the link that the test's parameter describes, one way or (forward, back)."""
    forward, back = request.param if isinstance(request.param, tuple) else (request.param, LinkSpec(delay=TRIP))
    call = Call(forward, back)
    await call.begin()
    yield call
    await call.end()


def link(spec: LinkSpec | tuple[LinkSpec, LinkSpec]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("across", [spec], indirect=True, ids=[""])


@link(LinkSpec(delay=TRIP))
async def test_a_link_that_only_delays_changes_nothing(across: Call) -> None:
    await across.send(30)
    assert across.clean == list(range(30))
    assert across.idrs == [0]
    assert across.path.plis == across.path.skipped == 0
    assert across.relay.forward.counts.media >= 30


@link(LinkSpec(delay=TRIP, lose={12}))
async def test_one_lost_packet_costs_no_picture(across: Call) -> None:
    await across.send(40)
    assert across.relay.forward.counts.lost == 1
    assert across.clean == list(range(40))
    assert across.idrs == [0]
    assert across.path.plis == 0


@link(LinkSpec(delay=TRIP, lose={12, 20, 28, 36}))
async def test_single_losses_cost_no_picture(across: Call) -> None:
    await across.send(50)
    assert across.relay.forward.counts.lost == 4
    assert across.clean == list(range(50))
    assert across.idrs == [0]


@link(LinkSpec(delay=TRIP, lose=range(14, 22)))
async def test_a_lost_burst_costs_at_most_what_was_lost_and_one_idr(across: Call) -> None:
    await across.send(60)
    assert across.relay.forward.counts.lost == 8
    assert across.arrived == sorted(set(across.arrived))
    assert len(across.arrived) >= 60 - 8
    assert across.clean[-1] == 59
    assert len(across.idrs) <= 2


@link(LinkSpec(delay=TRIP, lose={0}))
async def test_a_call_whose_first_packet_is_lost_begins_all_the_same(across: Call) -> None:
    await across.send(60)
    assert across.relay.forward.counts.lost == 1
    assert across.clean[-1] == 59
    assert len(across.idrs) <= 2


@link((LinkSpec(delay=TRIP, outages=((0.3, 0.6),)), LinkSpec(delay=TRIP, outages=((0.3, 0.6),))))
async def test_after_an_outage_one_idr_mends_the_picture(across: Call) -> None:
    await across.send(100)
    assert across.relay.forward.counts.lost > 0
    assert across.arrived == sorted(set(across.arrived))
    assert across.clean[-1] == 99
    assert len(across.idrs) <= 2
    # All that was sent when the link was back, 0.9 s after the first picture, has arrived.
    assert set(range(60, 100)) <= set(across.arrived)


@link(LinkSpec(delay=TRIP, reorder=0.1))
async def test_reordering_costs_nothing(across: Call) -> None:
    await across.send(40)
    assert across.clean == list(range(40))
    assert across.idrs == [0]


@link(LinkSpec(delay=TRIP, jitter=0.03))
async def test_jitter_costs_nothing(across: Call) -> None:
    await across.send(40)
    assert across.clean == list(range(40))
    assert across.idrs == [0]


@link(LinkSpec(delay=TRIP, rate=((0.0, 2e6), (0.3, 40e3), (0.6, 2e6)), queue=5.0))
async def test_what_waits_while_a_link_is_narrow_is_not_lost(across: Call) -> None:
    await across.send(60)
    assert across.relay.forward.counts.tail_dropped == 0
    assert across.relay.forward.counts.wait(100) > 0.1
    assert across.clean == list(range(60))
    assert across.idrs == [0]


@link(LinkSpec(delay=TRIP, rate=((0.0, 2e6), (0.3, 20e3), (0.8, 2e6)), queue=0.1))
async def test_what_a_full_queue_dropped_is_mended(across: Call) -> None:
    await across.send(100)
    assert across.relay.forward.counts.tail_dropped > 0
    assert across.arrived == sorted(set(across.arrived))
    assert across.clean[-1] == 99
    assert len(across.idrs) <= 3


@link((LinkSpec(delay=TRIP), LinkSpec(delay=TRIP, loss=0.3, seed=3)))
async def test_losses_on_the_way_back_alone_cost_nothing(across: Call) -> None:
    await across.send(40)
    assert across.clean == list(range(40))
    assert across.idrs == [0]


# The relay by itself

SDP = (
    "v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:0\r\na=ice-ufrag:ab\r\n"
    "a=candidate:1 1 udp 5 2001:db8::7 7000 typ host\r\na=candidate:2 1 tcp 5 192.0.2.1 9 typ host tcptype active\r\n"
    "a=candidate:3 1 udp 5 192.0.2.7 7001 typ host\r\na=candidate:4 1 udp 5 x.local 7002 typ host\r\n"
    "a=end-of-candidates\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=ice-ufrag:ab\r\n"
)


def test_candidates_are_replaced_in_every_section() -> None:
    assert candidate_of(SDP) == ("192.0.2.7", 7001)
    text = with_candidate(SDP, ("192.0.2.9", 5000))
    assert re.findall(r"a=candidate:.* (\S+) (\d+) typ", text) == [("192.0.2.9", "5000")] * 2
    assert candidate_of(text) == ("192.0.2.9", 5000)
    assert text.count("a=end-of-candidates") == 2
    assert candidate_of("v=0\r\n") is None


def test_rtp_is_told_from_rtcp_stun_and_dtls() -> None:
    rest = bytes(20)
    assert is_media(bytes([0x80, 96]) + rest)
    assert is_media(bytes([0x80, 0x80 | 97]) + rest)  # with the marker bit
    assert not is_media(bytes([0x80, 200]) + rest)  # a sender report
    assert not is_media(bytes([0x81, 206]) + rest)
    assert not is_media(bytes([0, 1]) + rest)  # STUN
    assert not is_media(bytes([22, 0xFE]) + rest)  # DTLS


async def test_an_offer_without_an_address_of_this_machine_is_refused() -> None:
    with pytest.raises(SemcallError, match="no candidate"):
        await Relay().offer("v=0\r\n")
    with pytest.raises(SemcallError, match="no address of this machine"):
        await Relay().offer(SDP)


async def test_a_proxy_puts_whip_across_the_link() -> None:
    peers: list[RTCPeerConnection] = []
    ended = asyncio.Event()

    async def on_call(peer: RTCPeerConnection) -> None:
        peers.append(peer)

    server = WhipServer(on_call, token="secret", on_end=ended.set)
    await server.start(port=0)
    relay = Relay()
    proxy = WhipProxy(server.url, relay)
    await proxy.start()
    caller, client = create_peer(), WhipClient(proxy.url, "secret")
    prefer_h264(caller.addTransceiver("video", direction="sendonly"))
    try:
        await client.wait_for_endpoint(5)
        await client.publish(caller)
        await wait_connected(caller)
        for peer in (caller, peers[0]):  # neither has seen the other's own address
            assert candidate_of(peer.remoteDescription.sdp) != candidate_of(_other(peer, caller, peers[0]))
        assert client.location is not None
        assert client.location.port == int(proxy.url.split(":")[2].partition("/")[0])
        async with aiohttp.ClientSession() as http, http.get(proxy.url) as reply:
            assert reply.status == 405
            assert "semcall receiver" in await reply.text()
        await client.close()
        await asyncio.wait_for(ended.wait(), PATIENCE)
    finally:
        await caller.close()
        await proxy.stop()
        await server.stop()
        relay.close()


def _other(peer: RTCPeerConnection, one: RTCPeerConnection, two: RTCPeerConnection) -> str:
    return str((two if peer is one else one).localDescription.sdp)


async def test_a_refusal_passes_the_proxy() -> None:
    async def on_call(peer: RTCPeerConnection) -> None:
        raise web.HTTPConflict

    server = WhipServer(on_call, token="secret")
    await server.start(port=0)
    relay = Relay()
    proxy = WhipProxy(server.url, relay)
    await proxy.start()
    caller, client = create_peer(), WhipClient(proxy.url)
    prefer_h264(caller.addTransceiver("video", direction="sendonly"))
    try:
        with pytest.raises(SemcallError, match="wants a token"):
            await client.publish(caller)
    finally:
        await caller.close()
        await proxy.stop()
        await server.stop()
        relay.close()


SHOUT = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(bytes([0x80, 96]) + bytes(30), {!r})"
HEAR = (
    "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind({!r}); "
    "print('ready', flush=True); print(len(s.recv(99)), flush=True)"
)


async def test_datagrams_cross_from_one_namespace_to_the_other() -> None:
    if (problem := namespaces_problem()) is not None:
        pytest.skip(problem)
    try:
        async with asyncio.timeout(PATIENCE), Namespaces(LinkSpec(lose={0}), LinkSpec()) as between:
            place = between.host, 7000
            hearing = await asyncio.create_subprocess_exec(
                *between.receiver, sys.executable, "-c", HEAR.format(place), stdout=asyncio.subprocess.PIPE
            )
            assert hearing.stdout is not None
            assert await hearing.stdout.readline() == b"ready\n"
            for _ in range(2):  # the first is lost
                shouting = await asyncio.create_subprocess_exec(
                    *between.sender, sys.executable, "-c", SHOUT.format(place)
                )
                await shouting.wait()
            assert await hearing.stdout.readline() == b"32\n"
            await hearing.wait()
    except SemcallError as error:
        pytest.skip(str(error))
    assert (between.forward.counts.media, between.forward.counts.lost) == (2, 1)
    assert between.began is not None


def test_what_namespaces_need_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert "Linux" in str(namespaces_problem())
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "geteuid", lambda: 1000, raising=False)
    assert "root" in str(namespaces_problem())
