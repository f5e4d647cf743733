"""The shared aiortc parts."""

from __future__ import annotations

import asyncio
import concurrent.futures
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import aioice.ice
import pytest
from aiortc import RTCRtpReceiver, RTCRtpSender, RTCSessionDescription
from aiortc.codecs.h264 import H264Encoder
from aiortc.sdp import SessionDescription

from shared.errors import SemcallError
from shared.peer import (
    BASELINE,
    CONSTRAINED_BASELINE,
    LoopThread,
    check_aiortc,
    close_peer,
    create_peer,
    offered_h264,
    parse_ice_server,
    prefer_h264,
    video_transceiver,
    wait_connected,
)

ROOT = Path(__file__).parents[1]


async def offer_text(profile=CONSTRAINED_BASELINE, ice_servers=()):
    peer = create_peer(ice_servers)
    prefer_h264(peer.addTransceiver("video", direction="sendonly"), profile)
    await peer.setLocalDescription(await peer.createOffer())
    text = peer.localDescription.sdp
    await peer.close()
    return text


async def test_offers_constrained_baseline_h264_only():
    (video,) = SessionDescription.parse(await offer_text()).media
    codecs = {codec.mimeType: codec.parameters for codec in video.rtp.codecs}
    assert set(codecs) == {"video/H264", "video/rtx"}
    assert len(video.rtp.codecs) == 2
    assert codecs["video/H264"]["profile-level-id"] == "42e01f"
    assert str(codecs["video/H264"]["packetization-mode"]) == "1"


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ("packetization-mode=1;profile-level-id=42e01f", CONSTRAINED_BASELINE),  # browsers
        ("packetization-mode=1;profile-level-id=42c028", CONSTRAINED_BASELINE),  # FFmpeg, libx264 at 1080p
        ("packetization-mode=1;profile-level-id=42E034", CONSTRAINED_BASELINE),
        ("packetization-mode=1;profile-level-id=42001f", BASELINE),
        ("packetization-mode=1", CONSTRAINED_BASELINE),
        ("packetization-mode=0;profile-level-id=42e01f", None),
        ("profile-level-id=42e01f", None),
        ("packetization-mode=1;profile-level-id=64001f", None),
        ("packetization-mode=1;profile-level-id=nonsense", None),
    ],
)
async def test_finds_the_h264_profile_that_aiortc_will_match(parameters, expected):
    text = await offer_text()
    line = next(line for line in text.splitlines() if "profile-level-id" in line)
    text = text.replace(line, f"{line.split()[0]} {parameters}")
    assert offered_h264(SessionDescription.parse(text).media[0]) == expected
    # The same choice, made by aiortc's negotiation.
    peer = create_peer()
    prefer_h264(peer.addTransceiver("video", direction="recvonly"), expected or CONSTRAINED_BASELINE)
    try:
        if expected is None:
            with pytest.raises(Exception, match="Failed to set remote video"):
                await peer.setRemoteDescription(RTCSessionDescription(text, "offer"))
        else:
            await peer.setRemoteDescription(RTCSessionDescription(text, "offer"))
            await peer.setLocalDescription(await peer.createAnswer())
            assert f"profile-level-id={expected}" in peer.localDescription.sdp
            assert "VP8" not in peer.localDescription.sdp
    finally:
        await peer.close()


async def test_unknown_profile_is_refused():
    peer = create_peer()
    with pytest.raises(ValueError, match="64001f"):
        prefer_h264(peer.addTransceiver("video"), "64001f")
    await peer.close()


async def test_video_transceiver_is_the_first_video():
    peer = create_peer()
    with pytest.raises(LookupError):
        video_transceiver(peer)
    peer.addTransceiver("audio")
    first = peer.addTransceiver("video")
    peer.addTransceiver("video")
    assert video_transceiver(peer) is first
    await peer.close()


async def test_no_ice_server_is_contacted_unless_given():
    peer = create_peer()
    transceiver = peer.addTransceiver("video")
    assert transceiver.receiver.transport.transport._connection.stun_server is None
    other = create_peer(["stun:192.0.2.1"])
    transceiver = other.addTransceiver("video")
    assert transceiver.receiver.transport.transport._connection.stun_server == ("192.0.2.1", 3478)
    await peer.close()
    await other.close()


def test_ice_servers_are_parsed():
    assert parse_ice_server("stun:example.org:19302").urls == "stun:example.org:19302"
    turn = parse_ice_server("turn:me:se%40cret@example.org?transport=tcp")
    assert (turn.urls, turn.username, turn.credential) == ("turn:example.org?transport=tcp", "me", "se@cret")
    for wrong in ("example.org", "http://example.org", "stun:", "stun:a?transport=udp"):
        with pytest.raises(SemcallError, match="ICE server"):
            parse_ice_server(wrong)
    with pytest.raises(SemcallError):
        create_peer(["nonsense"])


async def test_loopback_is_offered_when_there_is_no_other_address(monkeypatch):
    if aioice.ice.get_host_addresses(use_ipv4=True, use_ipv6=True):
        assert "127.0.0.1" not in await offer_text()
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda use_ipv4, use_ipv6: [])
    (video,) = SessionDescription.parse(await offer_text()).media
    assert [candidate.ip for candidate in video.ice_candidates] == ["127.0.0.1"]


CALL_ON_LOOPBACK = """
import asyncio, fcntl, socket, struct

with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:  # ip link set lo up
    fcntl.ioctl(sock, 0x8914, struct.pack("16sh14x", b"lo", 0x1 | 0x40))
    try:
        sock.connect(("192.0.2.1", 9))
        raise SystemExit("this namespace has a route")
    except OSError:
        pass

from aiortc import RTCSessionDescription, VideoStreamTrack
from shared.peer import close_peer, create_peer, prefer_h264, wait_connected

async def main():
    caller, callee = create_peer(), create_peer()
    tracks = asyncio.Queue()
    callee.on("track", tracks.put_nowait)
    prefer_h264(caller.addTransceiver(VideoStreamTrack(), direction="sendonly"))
    await caller.setLocalDescription(await caller.createOffer())
    await callee.setRemoteDescription(RTCSessionDescription(caller.localDescription.sdp, "offer"))
    await callee.setLocalDescription(await callee.createAnswer())
    await caller.setRemoteDescription(RTCSessionDescription(callee.localDescription.sdp, "answer"))
    await asyncio.gather(wait_connected(caller), wait_connected(callee))
    track = await tracks.get()
    frame = await asyncio.wait_for(track.recv(), 10)
    await close_peer(caller)
    await close_peer(callee)
    print("frame", frame.width, frame.height)

asyncio.run(main())
"""


def test_two_peers_meet_on_a_machine_with_loopback_only():
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-rn", "true"], capture_output=True).returncode != 0:
        pytest.skip("network namespaces are not permitted here")
    done = subprocess.run(
        [unshare, "-rn", sys.executable, "-c", CALL_ON_LOOPBACK], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "frame 640 480"


async def test_wait_connected_says_when_nothing_comes_about():
    peer = create_peer()
    with pytest.raises(SemcallError, match="UDP"):
        await wait_connected(peer, timeout=0.01)
    await close_peer(peer)
    with pytest.raises(SemcallError, match="UDP"):
        await wait_connected(peer, timeout=30)


async def test_close_peer_does_not_wait_for_ever(caplog):
    released = asyncio.Event()

    class Stuck:
        async def close(self):
            await released.wait()

    class Broken:
        async def close(self):
            raise OSError("gone")

    await close_peer(Stuck(), timeout=0.01)
    await close_peer(Broken())
    released.set()
    assert "takes more than" in caplog.text
    assert "gone" in caplog.text


def test_aiortc_has_the_parts_that_are_replaced():
    check_aiortc()


@pytest.mark.parametrize(
    ("owner", "name"),
    [(RTCRtpReceiver, "_send_rtcp_pli"), (RTCRtpSender, "_next_encoded_frame"), (H264Encoder, "_packetize")],
)
def test_a_renamed_part_is_noticed(monkeypatch, owner, name):
    monkeypatch.delattr(owner, name)
    with pytest.raises(SemcallError, match=rf"{name}.*install aiortc 1\.16"):
        check_aiortc()


def test_a_part_that_is_no_longer_used_is_noticed(monkeypatch):
    async def _handle_rtp_packet(self, packet, arrival_time_ms):
        self._buffer.add(packet)

    monkeypatch.setattr(RTCRtpReceiver, "_handle_rtp_packet", _handle_rtp_packet)
    with pytest.raises(SemcallError, match="_RTCRtpReceiver__jitter_buffer"):
        check_aiortc()


async def test_the_instances_carry_the_private_attributes():
    peer = create_peer()
    transceiver = peer.addTransceiver("video")
    for name in ("jitter_buffer", "nack_generator", "decoder_queue", "timestamp_mapper", "remote_streams"):
        assert hasattr(transceiver.receiver, f"_RTCRtpReceiver__{name}")
    assert hasattr(transceiver.sender, "_RTCRtpSender__encoder")
    await peer.close()


def test_loop_thread_runs_coroutines_and_passes_exceptions():
    async def where():
        await asyncio.sleep(0)
        return threading.current_thread().name

    async def fail():
        raise SemcallError("as expected")

    with LoopThread("here") as loop:
        assert loop.call(where()) == "here"
        with pytest.raises(SemcallError, match="as expected"):
            loop.call(fail())
        posted = threading.Event()
        loop.post(posted.set)
        assert posted.wait(10)


def test_loop_thread_call_times_out_and_cancels():
    cancelled = threading.Event()

    async def never():
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with LoopThread() as loop:
        with pytest.raises(TimeoutError):
            loop.call(never(), timeout=0.05)
        assert cancelled.wait(10)


def test_loop_thread_stop_cancels_tasks_and_waiting_calls():
    loop = LoopThread().start()
    began = threading.Event()
    raised = []

    async def never():
        began.set()
        await asyncio.Event().wait()

    def wait():
        try:
            loop.call(never())
        except BaseException as error:
            raised.append(error)

    caller = threading.Thread(target=wait)
    caller.start()
    assert began.wait(10)
    assert loop.stop()
    caller.join(10)
    assert isinstance(raised[0], concurrent.futures.CancelledError)
    assert loop.stop()  # again: harmless
    loop.post(print)  # after the end: ignored
    with pytest.raises(RuntimeError):
        loop.call(never())


def test_loop_thread_refuses_to_wait_for_itself():
    async def nothing():
        return None

    loop = LoopThread()

    async def inside():
        with pytest.raises(RuntimeError, match="another thread"):
            loop.call(nothing())
        return "refused"

    with pytest.raises(RuntimeError):
        loop.call(nothing())  # not started
    with loop:
        assert loop.call(inside()) == "refused"


def test_loop_thread_that_never_started_can_be_stopped():
    assert LoopThread().stop()


@pytest.mark.parametrize("timeout", [None, 20.0])
def test_loop_thread_call_waits_in_slices(monkeypatch, timeout):
    """Windows does not hear Ctrl-C in a wait without end."""
    waits = []
    enough = asyncio.Event()
    wait = threading.Condition.wait

    def noted(self, seconds=None):
        if threading.current_thread() is threading.main_thread():
            waits.append(seconds)
            if len(waits) == 3 or seconds is None:
                loop.post(enough.set)
        return wait(self, seconds)

    async def until_enough():
        await enough.wait()
        return "done"

    with LoopThread() as loop, monkeypatch.context() as patch:
        patch.setattr(threading.Condition, "wait", noted)
        assert loop.call(until_enough(), timeout) == "done"
    assert len(waits) >= 3
    assert all(seconds is not None and seconds <= 0.25 for seconds in waits)


def test_loop_thread_call_passes_the_coroutines_own_timeout():
    async def fail():
        raise TimeoutError("its own")

    with LoopThread() as loop, pytest.raises(TimeoutError, match="its own"):
        loop.call(fail())
