"""`semcall send --listen`: one viewer after the other."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Callable

from aiortc import RTCPeerConnection

from sender.call import Call
from sender.capture import Source
from sender.face import Parser
from sender.options import SendOptions
from shared.peer import LoopThread
from shared.signalling_listen import server_tls
from shared.stats import Stats
from shared.whep_server import WhepServer


class Stage:
    """Waits for viewers and plays to one after the other (`semcall send --listen`)."""

    def __init__(self, options: SendOptions) -> None:
        self._options = options
        self._new_call: Callable[[], Call]
        self._came: queue.SimpleQueue[Call] = queue.SimpleQueue()
        self._server = WhepServer(
            self._call_began,
            token=options.token,
            ice_servers=options.ice_servers,
            replace=options.replace,
            tls=server_tls(options.cert, options.key),
            place_options=("--listen", "--listen"),
        )

    def play(
        self,
        source: Source,
        parser: Parser | None,
        loop: LoopThread,
        say: Callable[[str], None],
        status: Callable[[Stats], None],
        ready: Callable[[str], None],
    ) -> None:
        """Until Ctrl-C, or with `once` to the end of the first call."""
        assert self._options.listen is not None
        self._new_call = lambda: Call(self._options, None, source, parser, loop)
        loop.call(self._server.start(*self._options.listen))
        try:
            ready(self._server.url)
            append = False
            while True:
                call = self._next()
                if call.over:  # gone before its turn: no reason to open the camera
                    call.close()
                    continue
                try:
                    say(f"A viewer has come: sending {source.size[0]}x{source.size[1]} at {source.fps:.3g} fps.")
                    call.run(say, status, append)
                finally:
                    call.close()
                append = True
                if self._options.once:
                    say(call.end)
                    return
                say(f"{call.end} Waiting for a viewer at {self._server.url}")
                status(Stats(role="send", state="Waiting for a viewer"))
        finally:
            with contextlib.suppress(TimeoutError):  # the process ends anyway
                loop.call(self._server.stop(), timeout=2)

    def _next(self) -> Call:
        while True:  # not one endless wait: on Windows that would not hear Ctrl-C
            with contextlib.suppress(queue.Empty):
                return self._came.get(timeout=0.25)

    async def _call_began(self, peer: RTCPeerConnection) -> None:
        call = self._new_call()
        call.attach(peer)

        @peer.on("connectionstatechange")
        def _state_changed() -> None:
            if peer.connectionState == "connected":
                call.listen()
                self._came.put(call)
