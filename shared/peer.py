"""The aiortc parts that both ends share: peer connection, codec choice, event loop in a thread.

aiortc gives ICE, DTLS, SRTP, SDP and RTP; semcall replaces some of its parts on the instances. `PRIVATE_NAMES`
is the complete list of what it touches besides the public interface, and `check_aiortc` says whether the
installed release still has it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import re
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from types import CodeType, TracebackType
from typing import Any, Final, TypeVar
from urllib.parse import unquote

import aiortc
from aioice import Candidate, Connection, TransportPolicy
from aiortc import (
    RTCBundlePolicy,
    RTCConfiguration,
    RTCDtlsTransport,
    RTCIceGatherer,
    RTCIceServer,
    RTCPeerConnection,
    RTCRtpReceiver,
    RTCRtpSender,
    RTCRtpTransceiver,
    RTCSessionDescription,
)
from aiortc.codecs.h264 import H264Encoder
from aiortc.rtcicetransport import parse_stun_turn_uri
from aiortc.sdp import H264Profile, MediaDescription, parse_h264_profile_level_id

from shared.errors import SemcallError

T = TypeVar("T")
log = logging.getLogger(__name__)

CONSTRAINED_BASELINE: Final = "42e01f"
"""profile-level-id (RFC 6184 section 8.1) of Constrained Baseline, level 3.1: our encoder's at 720p30."""
BASELINE: Final = "42001f"
"""profile-level-id of Baseline, level 3.1; a Constrained Baseline stream is one too."""

_SLICE = 0.25  # seconds; Windows does not hear Ctrl-C in a wait without end
_LOOPBACK = "127.0.0.1"
_TURN_LOGIN = re.compile(r"(turns?:)([^:@]+):([^@]+)@(.+)")

PRIVATE_NAMES: Final[tuple[tuple[type, str, tuple[str, ...]], ...]] = (
    # class, method that must exist, names that its code must use for our replacements to take effect
    (RTCRtpSender, "_next_encoded_frame", ("_RTCRtpSender__encoder", "isinstance", "Frame", "encode", "pack")),
    (
        RTCRtpSender,
        "_handle_rtcp_packet",
        (
            "_send_keyframe",
            "_retransmit",
            "target_bitrate",
            "_ssrc",
            "_RTCRtpSender__lsr",
            "_RTCRtpSender__lsr_time",
        ),
    ),
    (RTCRtpSender, "_send_keyframe", ()),
    (RTCRtpSender, "_retransmit", ("_RTCRtpSender__rtp_history",)),
    (
        RTCRtpReceiver,
        "_handle_rtp_packet",
        (
            "_RTCRtpReceiver__jitter_buffer",
            "_RTCRtpReceiver__nack_generator",
            "_RTCRtpReceiver__decoder_queue",
            "_RTCRtpReceiver__timestamp_mapper",
            "_RTCRtpReceiver__remote_streams",
            "_send_rtcp_pli",
            "_send_rtcp_nack",
            "missing",
            "add",
            "_data",
        ),
    ),
    (RTCRtpReceiver, "receive", ("_RTCRtpReceiver__decoder_queue",)),
    (RTCRtpReceiver, "_send_rtcp_pli", ()),
    (RTCRtpReceiver, "_send_rtcp_nack", ()),
    (H264Encoder, "_split_bitstream", ()),
    (H264Encoder, "_packetize", ()),
    (RTCRtpSender, "_run_rtp", ("transport", "_send_rtp")),
    (RTCDtlsTransport, "_send_rtp", ()),
    (RTCDtlsTransport, "_handle_rtp_data", ("_handle_rtp_packet",)),
    (RTCDtlsTransport, "_handle_rtcp_data", ("_handle_rtcp_packet",)),
    (RTCIceGatherer, "gather", ("_connection", "gather_candidates")),
    (Connection, "gather_candidates", ("get_component_candidates", "_transport_policy")),
    (Connection, "get_component_candidates", ()),
)
"""Every private name of aiortc and aioice that semcall replaces or reads."""


def check_aiortc() -> None:
    """Raise SemcallError when this aiortc no longer has the parts that semcall replaces."""
    lost = []
    for owner, method, names in PRIVATE_NAMES:
        function = getattr(owner, method, None)
        used = set(_names(function.__code__)) if function is not None else set()
        lost += [f"{owner.__name__}.{method}"] if function is None else []
        lost += [f"{owner.__name__}.{method}: {name}" for name in names if name not in used]
    if lost:
        raise SemcallError(
            f"aiortc {aiortc.__version__} lacks parts that semcall replaces ({', '.join(lost)}): install aiortc 1.16."
        )


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


class _Peer(RTCPeerConnection):
    """A peer connection that falls back on 127.0.0.1.

    aioice never offers loopback addresses, so on a machine without any network two local peers could not meet.
    """

    async def setLocalDescription(  # noqa: N802
        self,
        sessionDescription: RTCSessionDescription | None = None,  # noqa: N803
    ) -> None:
        # Offerer and answerer both gather in here, when all their transports exist.
        for transceiver in self.getTransceivers():
            _fall_back_on_loopback(transceiver.receiver.transport.transport.iceGatherer)
        await super().setLocalDescription(sessionDescription)


def _fall_back_on_loopback(gatherer: RTCIceGatherer) -> None:
    connection = gatherer._connection
    if "get_component_candidates" in vars(connection):
        return
    gather = connection.get_component_candidates

    async def gather_or_loopback(component: int, addresses: list[str], timeout: int = 5) -> list[Candidate]:
        found = await gather(component, addresses, timeout)
        if not found and connection._transport_policy == TransportPolicy.ALL:
            found = await gather(component, [_LOOPBACK], timeout)
        return found

    connection.get_component_candidates = gather_or_loopback  # type: ignore[method-assign]


def parse_ice_server(text: str) -> RTCIceServer:
    """One STUN or TURN server: `stun:host[:port]` (RFC 7064) or `turn:[user:password@]host[:port]` (RFC 7065).

    User and password may be percent-encoded. Raises SemcallError for anything else.
    """
    login = _TURN_LOGIN.fullmatch(text)
    uri = login[1] + login[4] if login else text
    try:
        parse_stun_turn_uri(uri)
    except ValueError as error:
        raise SemcallError(
            f"{uri!r} is no ICE server: write stun:HOST:PORT or turn:USER:PASSWORD@HOST:PORT."
        ) from error
    if login:
        return RTCIceServer(urls=uri, username=unquote(login[2]), credential=unquote(login[3]))
    return RTCIceServer(urls=uri)


def create_peer(ice_servers: Sequence[str] = ()) -> RTCPeerConnection:
    """A peer connection with one transport for all media (BUNDLE, RFC 9143). Needs a running event loop.

    `ice_servers`: see `parse_ice_server`. None is contacted unless given here (aiortc's own default is a
    public one). Raises SemcallError for a malformed server.
    """
    servers = [parse_ice_server(server) for server in ice_servers]
    return _Peer(RTCConfiguration(iceServers=servers, bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))


def prefer_h264(transceiver: RTCRtpTransceiver, profile: str = CONSTRAINED_BASELINE) -> None:
    """Offer or answer H.264 of this `profile`, packetization-mode 1, with retransmissions, and nothing else.

    aiortc puts VP8 first unless told. Call it before the offer is created or the remote offer is applied.
    The level is not part of the match (level-asymmetry-allowed=1, RFC 6184 section 8.2.2).
    """
    chosen = [
        codec
        for codec in RTCRtpSender.getCapabilities("video").codecs
        if codec.mimeType.lower() == "video/rtx"
        or (codec.mimeType == "video/H264" and codec.parameters.get("profile-level-id") == profile)
    ]
    if len(chosen) < 2:
        raise ValueError(f"aiortc has no H.264 profile {profile}")
    transceiver.setCodecPreferences(chosen)


def offered_h264(media: MediaDescription) -> str | None:
    """The best profile that a video section offers with packetization-mode 1, as `prefer_h264` wants it, or None."""
    found = set()
    for codec in media.rtp.codecs:
        if codec.mimeType.lower() == "video/h264" and str(codec.parameters.get("packetization-mode")) == "1":
            # Without the parameter, browsers mean Constrained Baseline.
            level_id = str(codec.parameters.get("profile-level-id", CONSTRAINED_BASELINE))
            with contextlib.suppress(ValueError):
                found.add(parse_h264_profile_level_id(level_id)[0])
    if H264Profile.PROFILE_CONSTRAINED_BASELINE in found:
        return CONSTRAINED_BASELINE
    return BASELINE if H264Profile.PROFILE_BASELINE in found else None


def video_transceiver(peer: RTCPeerConnection) -> RTCRtpTransceiver:
    """The first video transceiver of a peer: the one that carries the call. LookupError when there is none."""
    for transceiver in peer.getTransceivers():
        if transceiver.kind == "video":
            return transceiver
    raise LookupError("the peer connection has no video")


async def wait_state(peer: RTCPeerConnection, *states: str) -> str:
    """Wait until `peer.connectionState` is one of `states`, and return it."""
    changed = asyncio.Event()
    peer.on("connectionstatechange", changed.set)
    try:
        while peer.connectionState not in states:
            changed.clear()
            await changed.wait()
        return str(peer.connectionState)
    finally:
        if changed.set in peer.listeners("connectionstatechange"):  # a closed peer has dropped its listeners
            peer.remove_listener("connectionstatechange", changed.set)


async def wait_connected(peer: RTCPeerConnection, timeout: float = 15.0) -> None:
    """Wait until ICE and DTLS stand. Raises SemcallError when they fail or after `timeout` seconds."""
    state = ""
    with contextlib.suppress(TimeoutError):
        state = await asyncio.wait_for(wait_state(peer, "connected", "failed", "closed"), timeout)
    if state != "connected":
        raise SemcallError(
            "The other end answered, but no media connection came about: "
            "check that UDP passes between the two machines, or give a STUN or TURN server."
        )


async def close_peer(peer: RTCPeerConnection, timeout: float = 0.7) -> None:
    """Close a peer connection; after `timeout` seconds go on while it finishes in the background."""
    closing = asyncio.ensure_future(peer.close())
    done, _ = await asyncio.wait({closing}, timeout=timeout)
    if not done:
        log.warning("closing a peer connection takes more than %.1f s", timeout)
    elif not closing.cancelled() and (error := closing.exception()):
        log.warning("closing a peer connection failed: %r", error)


class LoopThread:
    """An asyncio event loop in a daemon thread of its own, for programs whose main thread belongs to Qt."""

    def __init__(self, name: str = "network") -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._lock = threading.Lock()
        self._open = False
        self._cancel_within = 1.0

    def start(self) -> LoopThread:
        """Start the thread; once only."""
        with self._lock:
            self._thread.start()
            self._open = True
        return self

    def call(self, coroutine: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run `coroutine` in the loop and wait for its result. Its exceptions are raised here.

        Raises TimeoutError after `timeout` seconds (the coroutine is cancelled), RuntimeError when the loop does
        not run or when called from the loop itself, concurrent.futures.CancelledError when `stop` came first.
        """
        with self._lock:
            if not self._open or threading.current_thread() is self._thread:
                coroutine.close()
                raise RuntimeError("call() needs a running event loop in another thread")
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        end = None if timeout is None else time.monotonic() + timeout
        try:
            while not future.done():
                left = _SLICE if end is None else end - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                concurrent.futures.wait([future], min(left, _SLICE))
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def post(self, callback: Callable[..., object], *args: object) -> None:
        """Call `callback(*args)` in the loop, soon. Does nothing before `start` and after `stop`."""
        with self._lock:
            if self._open:
                self._loop.call_soon_threadsafe(callback, *args)

    def stop(self, timeout: float = 2.0) -> bool:
        """Cancel all tasks, end the loop, join its thread. Returns whether it ended within `timeout` seconds."""
        with self._lock:
            if self._open:
                self._open = False
                self._cancel_within = timeout * 0.75
                self._loop.call_soon_threadsafe(self._loop.stop)
        if self._thread.ident is None:
            self._loop.close()
        elif threading.current_thread() is not self._thread:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def __enter__(self) -> LoopThread:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            tasks = asyncio.all_tasks(self._loop)
            for task in tasks:
                task.cancel()
            if tasks:
                self._loop.run_until_complete(asyncio.wait(tasks, timeout=self._cancel_within))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()
