"""The call's window: the newest picture, its figures, five keys. Imports Qt; see `display.display_problem`."""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
import time
from collections.abc import Callable

from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import Qt

from receiver.display import NoDisplayError, display_problem
from receiver.picture import DecodedPicture
from receiver.view import PictureView
from shared.mailbox import Latest
from shared.stats import Stats

_KEYS = "r restore   s split   i figures   f full screen   q quit"
_HELP = "r: restoration on or off\ns: decoded | restored\ni: all figures\nf: full screen (Esc leaves it)\nq: quit"
_REFRESH_MS = 500
_NOTICE_MS = 1500


class CallWindow(QtWidgets.QWidget):
    """The receiver's window. Lives in the main thread; `notify` may be called from any.

    Keys: r restores or not, s splits the view, i shows all figures, f fills the screen (Esc leaves it), q quits.
    """

    _arrived = QtCore.Signal()

    def __init__(
        self,
        pictures: Latest[DecodedPicture],
        stats: Callable[[], Stats],
        on_restore: Callable[[bool], None],
        on_shown: Callable[[DecodedPicture], None],
        restore: bool = True,
    ) -> None:
        """All callables are called in the main thread and must return at once.

        `pictures`: where the newest picture waits; `stats`: the call's figures, asked for twice a second;
        `on_restore`: told the new state whenever `r` changes it from `restore`; `on_shown`: told once per picture,
        after it was painted, `shown` set. A picture that a newer one overtakes before the painting is not reported
        and counts in `pictures.dropped`; while the window is minimised or hidden, pictures are reported as they
        come.
        """
        super().__init__()
        self._pictures = pictures
        self._stats = stats
        self._on_restore = on_restore
        self._on_shown = on_shown
        self._restore = restore
        self._line = ""
        self._figures = False
        self._own_size: QtCore.QSize | None = None

        self.view = PictureView()
        self.status = QtWidgets.QLabel()
        self.keys = QtWidgets.QLabel(_KEYS)
        self.strip = QtWidgets.QWidget()
        self._lay_out()
        self._resize_view(960, 540)

        self._arrived.connect(self._take, Qt.ConnectionType.QueuedConnection)
        # Queued: reported after Qt has handed the painted window to the screen.
        self.view.painted.connect(self._report, Qt.ConnectionType.QueuedConnection)
        self._refresher = QtCore.QTimer(self, interval=_REFRESH_MS)
        self._refresher.timeout.connect(self.refresh)
        self._refresher.start()
        self._notice_end = QtCore.QTimer(self, interval=_NOTICE_MS, singleShot=True)
        self._notice_end.timeout.connect(lambda: self._set_notice(""))
        self.refresh()

    def notify(self) -> None:
        """A picture waits in the mailbox. From any thread; ignored once the window is gone."""
        with contextlib.suppress(RuntimeError):
            self._arrived.emit()

    def refresh(self) -> None:
        """Ask for the figures and show them."""
        stats = self._stats()
        live = stats.state == "live"
        self._line = stats.line() if live else ""  # the message in the middle says the rest
        self._elide()
        message = "" if live else stats.state
        figures = stats.rows() if self._figures else []
        if (message, figures) != (self.view.message, self.view.figures):
            self.view.message, self.view.figures = message, figures
            self.view.update()

    def keyPressEvent(self, event: QtGui.QKeyEvent) -> None:  # noqa: N802 (Qt's name)
        """The five keys, and Esc."""
        plain = event.modifiers() in (Qt.KeyboardModifier.NoModifier, Qt.KeyboardModifier.ShiftModifier)
        key = event.key()
        if event.isAutoRepeat():
            return
        if event.matches(QtGui.QKeySequence.StandardKey.Quit) or (plain and key == Qt.Key.Key_Q):
            self.close()
        elif plain and key == Qt.Key.Key_R:
            self._restore = not self._restore
            self._on_restore(self._restore)
            self._set_notice(f"restoration {'on' if self._restore else 'off'}")
        elif plain and key == Qt.Key.Key_S:
            self.view.set_split(not self.view.split)
        elif plain and key == Qt.Key.Key_I:
            self._figures = not self._figures
            self.refresh()
        elif plain and key == Qt.Key.Key_F:
            self.setWindowState(self.windowState() ^ Qt.WindowState.WindowFullScreen)
        elif plain and key == Qt.Key.Key_Escape:
            self.setWindowState(self.windowState() & ~Qt.WindowState.WindowFullScreen)
        else:
            super().keyPressEvent(event)

    def resizeEvent(self, event: QtGui.QResizeEvent) -> None:  # noqa: N802 (Qt's name)
        """Little room goes to the figures first."""
        self.keys.setVisible(event.size().width() >= 640)
        super().resizeEvent(event)
        self._elide()

    def _take(self) -> None:
        picture = self._pictures.get(timeout=0)
        if picture is None:
            return
        if self.view.picture is None and self.size() == self._own_size and not self.isFullScreen():
            self._resize_view(*picture.display_size)  # the user has not chosen a size
        if self.view.fresh:  # overtaken before it was painted
            self._pictures.drop()
        self.view.show_picture(picture)
        handle = self.windowHandle()
        if handle is None or not handle.isExposed():
            self.view.fresh = False  # Qt will not paint it, but figures and recording go on
            self._report(picture)
        if self.view.message:
            self.refresh()  # a call has begun: do not leave its first pictures dimmed

    def _report(self, picture: DecodedPicture) -> None:
        picture.shown = time.time()
        self._on_shown(picture)

    def _set_notice(self, text: str) -> None:
        self.view.notice = text
        self.view.update()
        if text:
            self._notice_end.start()

    def _elide(self) -> None:
        room = self.width() - 20 - (self.keys.sizeHint().width() + 16 if self.keys.isVisibleTo(self) else 0)
        how = Qt.TextElideMode.ElideRight
        self.status.setText(self.status.fontMetrics().elidedText(self._line, how, max(room, 0)))

    def _lay_out(self) -> None:
        self.setWindowTitle("semcall")
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.strip.setToolTip(_HELP)
        for label in (self.status, self.keys):
            label.setTextFormat(Qt.TextFormat.PlainText)
            label.setMinimumWidth(1)  # a line of text must not keep the window wide
        self.status.setSizePolicy(QtWidgets.QSizePolicy.Policy.Ignored, QtWidgets.QSizePolicy.Policy.Fixed)
        self.strip.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        self.strip.setStyleSheet("background: #16181b; color: #c9ced6")
        self.keys.setStyleSheet("color: #7d8590")
        strip = QtWidgets.QHBoxLayout(self.strip)
        strip.setContentsMargins(10, 4, 10, 5)
        strip.setSpacing(16)
        strip.addWidget(self.status, 1)
        strip.addWidget(self.keys)
        column = QtWidgets.QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addWidget(self.view, 1)
        column.addWidget(self.strip)

    def _resize_view(self, width: int, height: int) -> None:
        """Give the picture this many logical pixels, or what nine tenths of the screen have for it."""
        strip = self.strip.sizeHint().height()
        available = self.screen().availableSize() * 0.9
        size, room = QtCore.QSize(width, height), QtCore.QSize(available.width(), available.height() - strip)
        if width > room.width() or height > room.height():
            size.scale(room, Qt.AspectRatioMode.KeepAspectRatio)
        self._own_size = QtCore.QSize(size.width(), size.height() + strip)
        self.resize(self._own_size)
        self._own_size = self.size()  # with the minimum observed


def create_application(checked: bool = False) -> QtWidgets.QApplication:
    """The process's QApplication; made here if there is none yet.

    Raises NoDisplayError, with the reason, where Qt would end the process instead; `checked` skips that test
    for callers who did it (`display.display_problem`). Closing the last window ends its loop.
    """
    existing = QtWidgets.QApplication.instance()
    if isinstance(existing, QtWidgets.QApplication):
        return existing
    problem = None if checked else display_problem()
    if problem is not None:
        raise NoDisplayError(problem)
    application = QtWidgets.QApplication(sys.argv[:1])
    application.setApplicationName("semcall")
    return application


def let_signals_through(app: QtCore.QCoreApplication) -> Callable[[], None]:
    """Let Python's signal handlers run at once while Qt's loop does; main thread only.

    Python runs them between bytecodes, of which Qt's loop executes none: the wakeup descriptor makes it run some.
    Returns a function that undoes everything; it may be called twice.
    """
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    notifier = QtCore.QSocketNotifier(reader.fileno(), QtCore.QSocketNotifier.Type.Read, app)

    def drain() -> None:
        with contextlib.suppress(BlockingIOError):
            reader.recv(64)

    def undo() -> None:
        if reader.fileno() < 0:
            return
        signal.set_wakeup_fd(former_fd)
        notifier.setEnabled(False)
        notifier.deleteLater()
        reader.close()
        writer.close()

    notifier.activated.connect(drain)
    former_fd = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    return undo
