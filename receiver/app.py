"""`semcall receive`: one picture's way from the wire to the eye.

[asyncio thread] aiortc -> jitter buffer -> queue -> decode thread -> Latest -> restore threads
    -> Latest -> [main thread] Qt window, or straight to the logbook with --headless
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

import cv2
from aiortc import RTCPeerConnection

from receiver.call import Call
from receiver.display import display_problem
from receiver.freeze import OnLoss
from receiver.logbook import Logbook
from receiver.picture import DecodedPicture
from receiver.pipeline import RestoreThread
from receiver.recorder import Recorder
from receiver.restorer import RestorerLadder
from receiver.restorer_files import RestorerFile, open_restorers
from shared.errors import SemcallError
from shared.mailbox import Latest
from shared.memory import settle
from shared.peer import LoopThread
from shared.signalling_links import naked
from shared.signalling_listen import is_loopback, server_tls
from shared.signals import handling
from shared.stats import Stats
from shared.terminal import TerminalView
from shared.whep_client import WhepViewer
from shared.whip_server import WhipServer

_GRACE = 1.0  # seconds after Ctrl-C in which another one changes nothing


@dataclass(frozen=True, slots=True)
class ReceiveOptions:
    """What `semcall receive` was asked for. `once`: end with the first call; `restorers`: largest first, or none.

    `watch`: the address of a WHEP endpoint to watch, instead of waiting for calls; `token` is then the one to show.
    `replace`: a new caller takes the place of the old; `cert`, `key`: PEM files for https. `metrics`: `[HOST:]PORT`,
    for Prometheus. `on_loss`: what is shown of pictures that a loss damaged (receiver/freeze.py).
    """

    host: str = "127.0.0.1"
    port: int = 8787
    token: str | None = None
    restorers: tuple[RestorerFile, ...] = ()
    headless: bool = False
    once: bool = False
    record: Path | None = None
    overwrite: bool = False
    stats: Path | None = None
    snapshots: Path | None = None
    ice_servers: tuple[str, ...] = ()
    watch: str | None = None
    replace: bool = False
    cert: Path | None = None
    key: Path | None = None
    metrics: str | None = None
    on_loss: OnLoss = "freeze"


def receive(options: ReceiveOptions, say: Callable[[str], None], ready: Callable[[str], None]) -> None:
    """Wait for calls and show them until the user ends it (Ctrl-C, window closed) or, with `once`, the call ends.

    With `watch` it is one call, to the address given. `say` gets lines for the user, `ready` the endpoint's URL once
    it listens. Raises SemcallError for everything the user can mend.
    """
    cv2.setNumThreads(1)  # its pool would fight decoder and restorer for the cores
    headless = options.headless
    if not headless and (problem := display_problem()) is not None:
        say(f"No display ({problem}): going on as --headless.")
        headless = True
    with contextlib.ExitStack() as stack:
        receiver = Receiver(options, stack)
        stack.enter_context(_ctrl_c(receiver.end))
        say(f"Restorer: {receiver.restorer_name}.")
        settle()
        if options.metrics is not None:
            from shared.metrics import serve_metrics  # only where it is asked for

            say(f"Metrics at {stack.enter_context(serve_metrics(options.metrics, receiver.stats))}")
        loop = stack.enter_context(LoopThread())
        stack.callback(_stop, receiver, loop)
        if isinstance(receiver.server, WhepViewer):
            _tune_in(receiver, receiver.server, loop, say)
        else:
            loop.call(receiver.server.start(options.host, options.port))
            ready(receiver.server.url)
            if not is_loopback(options.host):
                _announce(receiver.server.url, loop, stack)
        receiver.restore.start()
        stack.callback(receiver.restore.close)
        if headless:
            _run_in_terminal(receiver)
        else:
            _run_in_window(receiver)
    if isinstance(receiver.server, WhepViewer) and receiver.server.end:
        say(receiver.server.end)
    if receiver.gone:
        say(receiver.gone)
    for sentence in receiver.losses():
        say(sentence)


def _announce(url: str, loop: LoopThread, stack: contextlib.ExitStack) -> None:
    """Tell the local network of the receiver until `stack` is left."""
    from shared.signalling_discovery import Announcement  # only where other machines can call

    announcement = Announcement(url)
    loop.call(announcement.start())

    def stop() -> None:
        with contextlib.suppress(TimeoutError):  # the process ends anyway
            loop.call(announcement.stop(), timeout=2)

    stack.callback(stop)


def _tune_in(receiver: Receiver, viewer: WhepViewer, loop: LoopThread, say: Callable[[str], None]) -> None:
    """Call the sender and wait until the connection stands, or the user gives up."""
    wanted = f"Waiting for a sender at {viewer.url} (start `semcall send --listen` there)."
    loop.call(viewer.begin(lambda: say(wanted)))
    while not receiver.over.is_set():
        if loop.call(viewer.begun(0.25)):  # not one endless wait: that would not hear Ctrl-C
            say(f"Connected to {viewer.url}.")
            if viewer.named:
                say(f"The sender names ICE servers, used where --ice-server names none: {naked(viewer.named)}.")
            return


class Receiver:
    """The rooms of the receiving end and how they are joined: construct, start `server` and `restore`, `stop`."""

    def __init__(self, options: ReceiveOptions, stack: contextlib.ExitStack) -> None:
        self._ladder: RestorerLadder | None = None
        if options.restorers:
            opened, lost = open_restorers(options.restorers)
            self._ladder = RestorerLadder(opened, lost=lost)
            stack.callback(self._ladder.close)
            try:
                self._ladder.warm_up(1280, 720)
            except SemcallError:  # told by its status
                if not all(file.optional for file in options.restorers):
                    raise
        self._recorder = Recorder(options.record, overwrite=options.overwrite) if options.record else None
        if self._recorder is not None:
            stack.callback(self._recorder.close)
        self.logbook = Logbook(options.stats, options.snapshots)
        stack.callback(self.logbook.close)
        self.ready: Latest[DecodedPicture] = Latest()
        self.notify: Callable[[], None] | None = None
        self.restore = RestoreThread(self._ladder, self._restored)
        self.server: WhipServer | WhepViewer
        if options.watch is not None:
            self.server = WhepViewer(
                options.watch,
                self._call_began,
                token=options.token,
                ice_servers=options.ice_servers,
                on_end=self._call_ended,
            )
        else:
            self.server = WhipServer(
                self._call_began,
                token=options.token,
                ice_servers=options.ice_servers,
                on_end=self._call_ended,
                replace=options.replace,
                tls=server_tls(options.cert, options.key),
            )
        self._watching = options.watch is not None
        self._once = options.once
        self.on_loss = options.on_loss
        self.gone = ""
        """Why the last call was given up here; empty where it was not."""
        self._call: Call | None = None
        self._calls = 0
        self.over = threading.Event()
        """Set when the receiver should end."""
        self.on_over: Callable[[], object] = lambda: None

    @property
    def restorer_name(self) -> str:
        """Name, device and part of the picture ("fast on CPU, face only"), or "off" and why."""
        return self._ladder.status if self._ladder is not None and self.restore.enabled else "off"

    def stats(self) -> Stats:
        """The call's figures now. From any thread."""
        call = self._call
        if call is None:
            ended = f"{self.gone or 'Call ended.'} " if self._calls or self.gone else ""
            if self._watching:
                return Stats(state=ended or f"Calling {self.server.url}", restorer=self.restorer_name)
            return Stats(state=f"{ended}Waiting for a caller at {self.server.url}", restorer=self.restorer_name)
        if not call.began:
            return Stats(state=call.path.watchdog.sentence() or "Connecting", restorer=self.restorer_name)
        return self.logbook.stats()

    @property
    def dropped(self) -> int:
        """Pictures decoded and not shown, over all calls."""
        return self.restore.pictures.dropped + self.ready.dropped

    def losses(self) -> list[str]:
        """A sentence for each thing that was to be written and is not; complete once everything is closed."""
        recorder, found = self._recorder, self.logbook.errors
        if recorder is not None and recorder.error is not None:
            found.append(recorder.error)
        if recorder is not None and recorder.dropped:
            found.append(f"The recording lacks {recorder.dropped} pictures: this machine was too slow to code them.")
        return found

    @property
    def trouble(self) -> str:
        """What was to be written and no longer is, in a few words."""
        stopped = ["log"] if self.logbook.errors else []
        if self._recorder is not None and self._recorder.error is not None:
            stopped.append("recording")
        return f"{' and '.join(stopped)} stopped" if stopped else ""

    def shown(self, picture: DecodedPicture) -> None:
        """`picture` is on the screen (or would be): count it, record it."""
        self.logbook.shown(picture)
        if self._recorder is not None:
            self._recorder.write(picture.visible, picture.shown, picture.aspect)

    def set_restore(self, enabled: bool) -> None:
        """Restore or not, from the next picture on."""
        self.restore.enabled = enabled

    def end(self) -> None:
        """Ask the receiver to end. From any thread."""
        self.over.set()
        self.on_over()

    async def stop(self) -> None:
        """Hang up and stop listening, within about a second."""
        await self.server.stop()

    def _restored(self, picture: DecodedPicture) -> None:
        """A picture leaves the restore thread."""
        if self.notify is not None:
            self.ready.put(picture)
            self.notify()
        else:
            picture.shown = time.time()
            self.shown(picture)

    async def _call_began(self, peer: RTCPeerConnection) -> None:
        call = self._call = Call(peer, self.restore.pictures.put, self.on_loss, self.logbook.received, self._silent)
        self.gone = ""
        before = self.dropped

        def figures() -> Stats:
            """What is known of the call besides its pictures. From any thread."""
            dropped = self.dropped - before
            return replace(call.stats(), restorer=self.restorer_name, dropped=dropped, trouble=self.trouble)

        self.logbook.new_call(figures)

    async def _silent(self, seconds: float) -> None:
        """Nothing came for so long that nothing will."""
        self.gone = f"No media came for {seconds:.0f} s: the call has ended."
        await self.server.end_call()

    def _call_ended(self) -> None:
        call, self._call = self._call, None
        if call is None:
            return
        call.close()
        self._calls += call.began
        if self._watching or (self._once and call.began):
            self.end()


@contextlib.contextmanager
def _ctrl_c(action: Callable[[], None]) -> Iterator[None]:
    """The first SIGINT or SIGTERM calls `action` instead of raising in the middle of something.

    One that comes later ends the process there and then, so that it can still be ended when it hangs: Python's own
    handler would only raise KeyboardInterrupt, which Qt's loop prints and forgets. For a moment repetitions are
    ignored: `timeout` sends its signal twice, and so do the impatient.
    """
    first: float | None = None

    def handle(number: int, _frame: FrameType | None) -> None:
        nonlocal first
        if first is None:
            first = time.monotonic()
            action()
        elif time.monotonic() - first >= _GRACE:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    with handling((signal.SIGINT, signal.SIGTERM), handle):
        yield


def _stop(receiver: Receiver, loop: LoopThread) -> None:
    with contextlib.suppress(TimeoutError):  # the process ends anyway
        loop.call(receiver.stop(), timeout=2)


def _run_in_terminal(receiver: Receiver) -> None:
    with TerminalView(receiver.stats):
        # Not one endless wait: on Windows that would not hear Ctrl-C.
        while not receiver.over.wait(0.25):
            pass


def _run_in_window(receiver: Receiver) -> None:
    from PySide6 import QtCore

    from receiver.window import CallWindow, create_application, let_signals_through  # Qt only when it is wanted

    app = create_application(checked=True)
    window = CallWindow(receiver.ready, receiver.stats, receiver.set_restore, receiver.shown)
    receiver.notify = window.notify
    queued = QtCore.Qt.ConnectionType.QueuedConnection
    receiver.on_over = lambda: QtCore.QMetaObject.invokeMethod(window, "close", queued)  # from any thread
    undo = let_signals_through(app)
    window.show()
    settle()  # Qt is large
    if not receiver.over.is_set():  # a Ctrl-C from before there was a window to close
        app.exec()
    receiver.notify = None
    undo()
