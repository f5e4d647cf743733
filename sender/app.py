"""`semcall send`: one picture's way from the source to the wire.

capture thread -> Latest -> encode thread (optical flow, x264) -> asyncio thread: track -> aiortc -> SRTP
                              now and then \\-> Latest -> segment thread (parser) -> Latest -^
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import cv2

from sender.call import Call
from sender.capture import open_source
from sender.encoder import warm_up
from sender.options import SendOptions
from sender.stage import Stage
from shared.lines import require_writable
from shared.memory import settle
from shared.peer import LoopThread, parse_ice_server
from shared.signals import interruptible
from shared.stats import Stats
from shared.whip_client import WhipClient


def send(
    options: SendOptions,
    say: Callable[[str], None],
    status: Callable[[Stats], None],
    ready: Callable[[str], None] = lambda _url: None,
) -> None:
    """Hold one call, or with `listen` one after the other; Ctrl-C (KeyboardInterrupt) and SIGTERM end it cleanly.

    `say` gets lines for the user, `status` the running call's figures twice a second, `ready` the endpoint's URL once
    it listens for viewers. Raises SemcallError for everything the user can mend.
    """
    cv2.setNumThreads(1)  # its pool would fight x264 and the parser for the cores
    client = WhipClient(options.to, options.token) if options.listen is None else None
    stage = Stage(options) if client is None else None
    for server in options.ice_servers:
        parse_ice_server(server)
    require_writable(options.encode.stats)
    parser = options.face.open()
    try:
        with interruptible(), LoopThread() as loop, contextlib.ExitStack() as stack:
            if options.metrics is not None:
                status = _served(options.metrics, status, say, stack)
            source = open_source(options.source, options.size, options.fps)
            warm_up()
            settle()
            if stage is not None:
                stage.play(source, parser, loop, say, status, ready)
                return
            call = Call(options, client, source, parser, loop)
            try:
                name = loop.call(call.connect(say))
                say(f"Connected to {name}: sending {source.size[0]}x{source.size[1]} at {source.fps:.3g} fps.")
                call.run(say, status)
                say(call.end)
            finally:
                call.close()
    except KeyboardInterrupt:
        say("Ended.")


def _served(
    place: str, status: Callable[[Stats], None], say: Callable[[str], None], stack: contextlib.ExitStack
) -> Callable[[Stats], None]:
    """What to call instead of `status`, so that its figures are served at `place` until `stack` is left."""
    from shared.metrics import serve_metrics  # only where it is asked for

    newest = Stats(role="send")

    def told(stats: Stats) -> None:
        nonlocal newest
        newest = stats
        status(stats)

    say(f"Metrics at {stack.enter_context(serve_metrics(place, lambda: newest))}")
    return told
