"""Receivers on the local network: announced and found by multicast DNS (RFC 6762) service discovery (RFC 6763).

The names and addresses found come from whoever is on that network: they are a hint for the user, no proof.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import re
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from yarl import URL
from zeroconf import Error as ZeroconfError
from zeroconf import InterfaceChoice, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from shared.errors import SemcallError
from shared.whip_client import WhipClient

log = logging.getLogger(__name__)

SERVICE: Final = "_semcall._tcp.local."
MAX_FOUND: Final = 20
"""How many receivers are listed at most."""
_ASK_SECONDS = 1.0
_GOODBYE_SECONDS = 1.0

Interfaces = Sequence[str] | InterfaceChoice


@dataclass(frozen=True, slots=True)
class Found:
    """A receiver: the `name` of its machine and the `url` of its endpoint."""

    name: str
    url: str


class Announcement:
    """Tells the local network of the receiver at `url` from `start` to `stop`. Belongs to one event loop.

    Does nothing where `url` names no address in numbers. A network without multicast is only logged: the receiver can
    be called all the same. `name`: of the machine, its host name unless told; a number is added where it is taken.
    """

    def __init__(self, url: str, name: str | None = None, interfaces: Interfaces = InterfaceChoice.All) -> None:
        self._url, self._name = URL(url), name or socket.gethostname().partition(".")[0] or "semcall"
        self._interfaces = interfaces
        self._zeroconf: AsyncZeroconf | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to announce, in the background: the network is asked first whether the name is free."""
        self._task = asyncio.ensure_future(self._register())

    async def stop(self) -> None:
        """Say goodbye to the network, within a second or so. Never raises."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
        zeroconf, self._zeroconf = self._zeroconf, None
        if zeroconf is not None:
            with contextlib.suppress(TimeoutError, OSError, ZeroconfError):
                await asyncio.wait_for(zeroconf.async_close(), _GOODBYE_SECONDS)

    async def _register(self) -> None:
        try:
            address = str(ipaddress.ip_address(self._url.host or ""))
        except ValueError:
            return
        # A dot would end the name's label, which has 63 bytes; a number may follow.
        name = re.sub(r"[.\x00-\x1f\x7f]", "-", self._name).encode()[:50].decode("utf-8", "ignore")
        info = AsyncServiceInfo(
            SERVICE,
            f"{name}.{SERVICE}",
            port=self._url.port,
            parsed_addresses=[address],
            properties={"path": self._url.path, "scheme": self._url.scheme},
            server=f"{re.sub(r'[^A-Za-z0-9-]', '-', name)}-semcall.local.",
        )
        try:
            self._zeroconf = AsyncZeroconf(interfaces=self._interfaces)
            await (await self._zeroconf.async_register_service(info, allow_name_change=True))
        except (OSError, ZeroconfError) as error:
            log.warning("this network is not told of the receiver: %r", error)


async def find_receivers(seconds: float = 3.0, interfaces: Interfaces = InterfaceChoice.All) -> list[Found]:
    """The receivers that answer within so many seconds, by name; none where there is no multicast. Never raises."""
    names: dict[str, None] = {}

    def changed(zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:  # noqa: ARG001
        if state_change is ServiceStateChange.Removed:
            names.pop(name, None)
        elif len(names) < MAX_FOUND:
            names[name] = None

    try:
        zeroconf = AsyncZeroconf(interfaces=interfaces)
    except OSError as error:
        log.info("this network cannot be asked for receivers: %r", error)
        return []
    try:
        browser = AsyncServiceBrowser(zeroconf.zeroconf, SERVICE, handlers=[changed])
        await asyncio.sleep(seconds)
        await browser.async_cancel()
        infos = []
        for name in names:
            with contextlib.suppress(ZeroconfError):  # no proper name
                infos.append(AsyncServiceInfo(SERVICE, name))
        await asyncio.gather(*(info.async_request(zeroconf.zeroconf, _ASK_SECONDS * 1e3) for info in infos))
    except (OSError, ZeroconfError) as error:
        log.info("this network cannot be asked for receivers: %r", error)
        return []
    finally:
        with contextlib.suppress(TimeoutError, OSError, ZeroconfError):
            await asyncio.wait_for(zeroconf.async_close(), _GOODBYE_SECONDS)
    found = [one for info in infos if (one := read_service(info)) is not None]
    return sorted(set(found), key=lambda one: (one.name, one.url))


async def look_around(client: WhipClient, token: str | None, say: Callable[[str], None]) -> WhipClient:
    """`client` where it is answered, else one for the only receiver that announces itself on the local network.

    Without a token none is called, only told of: all of them want one. Raises SemcallError when there are several.
    """
    with contextlib.suppress(SemcallError):
        await client.wait_for_endpoint(0.0)
        return client
    say("No receiver answers on this machine: looking for one on the local network.")
    found = await find_receivers()
    listed = ", ".join(f"{one.name} at {one.url}" for one in found)
    if not found:
        return client
    if token is None:
        say(f"On the local network: {listed}. Call one with --to and the --token that it shows.")
        return client
    if len(found) > 1:
        raise SemcallError(f"There are several receivers on the local network ({listed}): choose one with --to.")
    say(f"Calling {listed}.")
    return WhipClient(found[0].url, token)


def read_service(info: AsyncServiceInfo) -> Found | None:
    """What an answer says, if it can be called; signs that a terminal would obey are taken out."""
    addresses = info.parsed_addresses()
    properties = info.decoded_properties
    scheme, path = properties.get("scheme") or "http", properties.get("path") or "/whip"
    if not addresses or not info.port or scheme not in ("http", "https"):
        return None
    if not re.fullmatch(r"/[A-Za-z0-9._~/-]{0,80}", path):
        return None
    name = info.name.removesuffix("." + SERVICE)
    name = "".join(sign if sign.isprintable() else "?" for sign in name)[:63]
    return Found(name, str(URL.build(scheme=scheme, host=addresses[0].partition("%")[0], port=info.port, path=path)))
