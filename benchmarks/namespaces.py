"""A link between two network namespaces, each with a TUN device: signalling crosses it too. Linux, as root."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from benchmarks.link import Link, LinkSpec
from benchmarks.relay import Lane, is_media
from shared.errors import SemcallError

_TUN = "/dev/net/tun"
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000  # linux/if_tun.h
_CLONE_NEWNET = 0x40000000
_MTU = 1500
_UDP = 17


def namespaces_problem() -> str | None:
    """Why this machine cannot do it, as a sentence; None where it can be tried."""
    if not sys.platform.startswith("linux"):
        return "network namespaces are Linux's: leave it out, the relay needs none."
    if os.geteuid() != 0 or shutil.which("ip") is None or not os.access(_TUN, os.R_OK | os.W_OK):
        return f"it needs root, the command ip and {_TUN}: leave it out, the relay needs none of them."
    return None


def _carries_media(packet: bytes) -> bool:
    """Whether an IPv4 packet holds RTP (RFC 791, RFC 768)."""
    header = (packet[0] & 15) * 4
    return packet[9] == _UDP and is_media(packet[header + 8 :])


class Namespaces:
    """Two namespaces for as long as the block lasts. Raises SemcallError where they are not permitted."""

    host = "10.77.0.2"

    def __init__(self, forward: LinkSpec, back: LinkSpec) -> None:
        self.forward, self.back = Link(forward), Link(back)
        self.began: float | None = None
        """Unix time of the first RTP packet."""
        mark = secrets.token_hex(3)
        self._names = f"semcall-{mark}-a", f"semcall-{mark}-b"
        self.sender, self.receiver = (("ip", "netns", "exec", name) for name in self._names)
        self._devices: list[int] = []
        self._lanes: list[Lane] = []

    async def __aenter__(self) -> Namespaces:
        try:
            self._devices = [_open(name, f"10.77.0.{n}") for n, name in enumerate(self._names, 1)]
        except (OSError, subprocess.CalledProcessError) as error:
            self._remove()
            raise SemcallError(
                f"Network namespaces are not permitted here ({error}): use no --namespaces."
            ) from error
        loop = asyncio.get_running_loop()
        sender, receiver = self._devices
        for link, came, goes in ((self.forward, sender, receiver), (self.back, receiver, sender)):
            lane = Lane(link, _writer(goes))
            self._lanes.append(lane)
            loop.add_reader(came, self._read, came, lane)
        return self

    async def put_before(self, url: str) -> str:
        """The address to call: the receiver's own."""
        return url

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for lane in self._lanes:
            lane.close()
        for device in self._devices:
            asyncio.get_running_loop().remove_reader(device)
            os.close(device)
        self._remove()

    def _read(self, device: int, lane: Lane) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                packet = os.read(device, _MTU + 100)
                if packet[0] >> 4 != 4:
                    continue  # IPv6 neighbours look for each other; the call is IPv4
                media = _carries_media(packet)
                if media and self.began is None:
                    self.began, now = time.time(), asyncio.get_running_loop().time()
                    self.forward.begin(now)
                    self.back.begin(now)
                lane.push(packet, len(packet), media)

    def _remove(self) -> None:
        for name in self._names:
            if Path("/var/run/netns", name).exists():
                subprocess.run(["ip", "netns", "del", name], check=False)


def _writer(device: int) -> Callable[[bytes], None]:
    def write(packet: bytes) -> None:
        with contextlib.suppress(OSError):  # the other end is going
            os.write(device, packet)

    return write


def _open(name: str, address: str) -> int:
    """Make the namespace `name` and a TUN device in it with this address; returns the device's file descriptor."""
    import ctypes  # these two are not for every platform
    import fcntl

    subprocess.run(["ip", "netns", "add", name], check=True, capture_output=True)
    libc = ctypes.CDLL(None, use_errno=True)
    home, there = os.open("/proc/self/ns/net", os.O_RDONLY), os.open(f"/var/run/netns/{name}", os.O_RDONLY)
    try:
        if libc.setns(there, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
        device = os.open(_TUN, os.O_RDWR | os.O_NONBLOCK)
        try:
            fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH", b"tun0", _IFF_TUN | _IFF_NO_PI))
        finally:
            libc.setns(home, _CLONE_NEWNET)
    finally:
        os.close(home)
        os.close(there)
    for command in (f"addr add {address}/24 dev tun0", f"link set tun0 mtu {_MTU} up", "link set lo up"):
        subprocess.run(["ip", "-n", name, *command.split()], check=True, capture_output=True)
    return device
