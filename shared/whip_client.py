"""Publishing to a WHIP endpoint (RFC 9725): a semcall receiver, MediaMTX, LiveKit, Janus, Cloudflare."""

from __future__ import annotations

from aiortc import RTCPeerConnection

from shared.signalling_client import CallClient
from shared.signalling_role import WHIP


class WhipClient(CallClient):
    """One call to a WHIP endpoint; see `CallClient`."""

    role = WHIP

    async def publish(self, peer: RTCPeerConnection) -> None:
        """Offer what `peer` sends; see `CallClient.negotiate`."""
        await self.negotiate(peer)
