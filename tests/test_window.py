"""The window, offscreen: what is grabbed is what a user would see."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

if "QT_QPA_PLATFORM" not in os.environ:
    os.environ["QT_QPA_PLATFORM"] = "offscreen"
pytest.importorskip("PySide6.QtWidgets", reason="Qt's system libraries are missing", exc_type=ImportError)

from PySide6 import QtCore, QtTest, QtWidgets
from PySide6.QtCore import Qt

from receiver.picture import DecodedPicture
from receiver.view import compose, image_over
from receiver.window import CallWindow, create_application, let_signals_through
from shared.astronaut import photograph
from shared.mailbox import Latest
from shared.picture import I420, bgr_from_i420, i420_from_bgr
from shared.stats import Stats

ROOT = Path(__file__).resolve().parents[1]
LIVE = Stats(state="live", width=640, height=360, fps=29.9, kbps=402.0, restorer="off")
WAITING = Stats(state="waiting for a caller at http://127.0.0.1:8787/whip")


def photo(width: int = 640, height: int = 360) -> I420:
    return i420_from_bgr(cv2.resize(photograph()[:288], (width, height)))


def blurred(i420: I420) -> I420:
    return i420_from_bgr(cv2.GaussianBlur(bgr_from_i420(i420), (0, 0), 12))


def decoded(i420: I420, restored: I420 | None = None) -> DecodedPicture:
    rows, width = i420.shape
    qp = np.full((rows * 2 // 3 // 16, width // 16), 30, np.uint8)
    return DecodedPicture(i420, qp, rtp_ticks=0, keyframe=False, restored=restored)


class Call:
    """A window with everything around it recorded."""

    def __init__(self, stats: Stats = LIVE) -> None:
        self.stats = stats
        self.box: Latest[DecodedPicture] = Latest()
        self.shown: list[DecodedPicture] = []
        self.restore: list[bool] = []
        self.window = CallWindow(self.box, lambda: self.stats, self.restore.append, self.shown.append)
        self.window.show()

    def send(self, picture: DecodedPicture) -> None:
        self.box.put(picture)
        self.window.notify()
        self.settle()

    def settle(self) -> None:
        for _ in range(5):
            QtTest.QTest.qWait(5)

    def press(self, key: Qt.Key) -> None:
        QtTest.QTest.keyClick(self.window, key)
        self.settle()

    def grab(self) -> np.ndarray:
        """The picture's part of the window as float [H, W, 3], B G R."""
        image = self.window.view.grab().toImage().convertToFormat(image_over(np.zeros((1, 1, 4), np.uint8)).format())
        rows = np.frombuffer(image.constBits(), np.uint8).reshape(image.height(), image.bytesPerLine())
        return rows[:, : 4 * image.width()].reshape(image.height(), image.width(), 4)[..., :3].astype(float)


@pytest.fixture(scope="module")
def app() -> QtWidgets.QApplication:
    return create_application()


@pytest.fixture
def call(app: QtWidgets.QApplication) -> Iterator[Call]:
    call = Call()
    yield call
    call.window.close()
    call.window.deleteLater()
    app.processEvents()


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(float) - other).mean())


def test_shows_the_picture_pixel_by_pixel(call: Call) -> None:
    picture = photo()
    call.send(decoded(picture))
    grabbed = call.grab()
    assert grabbed.shape == (360, 640, 3)  # the window took the picture's size
    assert grabbed.std() > 40
    assert difference(grabbed, bgr_from_i420(picture)) == 0


@pytest.mark.parametrize("size", [(500, 600), (700, 250), (262, 180)])
def test_keeps_the_aspect_ratio_between_black_bars(call: Call, size: tuple[int, int]) -> None:
    picture = photo()
    call.send(decoded(picture))
    call.window.resize(*size)
    call.settle()
    grabbed = call.grab()
    height, width = grabbed.shape[:2]
    assert (width, height) == call.window.view.size().toTuple()
    inner_width, inner_height = min(width, height * 16 // 9), min(height, width * 9 // 16)
    left, top = (width - inner_width) // 2, (height - inner_height) // 2
    expected = cv2.resize(bgr_from_i420(picture), (inner_width, inner_height), interpolation=cv2.INTER_LINEAR)
    inner = grabbed[top : top + inner_height, left : left + inner_width]
    assert difference(inner, expected) < 4
    assert np.corrcoef(inner.ravel(), expected.ravel())[0, 1] > 0.99
    assert grabbed[: max(top - 1, 0)].max(initial=0) == 0
    assert grabbed[top + inner_height + 1 :].max(initial=0) == 0
    assert grabbed[:, : max(left - 1, 0)].max(initial=0) == 0
    assert grabbed[:, left + inner_width + 1 :].max(initial=0) == 0


def test_takes_the_first_pictures_size_but_not_against_the_user(app: QtWidgets.QApplication) -> None:
    call = Call(WAITING)
    before = call.window.size()
    call.window.resize(480, 400)
    call.send(decoded(photo()))
    assert call.window.size().toTuple() == (480, 400)
    assert before != call.window.size()
    huge = Call()
    huge.send(decoded(photo(3840, 2160)))
    room = huge.window.screen().availableSize()
    assert huge.window.width() <= room.width()
    assert huge.window.height() <= room.height()
    assert huge.window.view.width() / huge.window.view.height() == pytest.approx(16 / 9, rel=0.01)
    for window in (call.window, huge.window):
        window.close()


def test_samples_that_are_not_square_are_shown_in_their_shape(app: QtWidgets.QApplication) -> None:
    call = Call()
    narrow = photo(480, 360)
    call.send(replace(decoded(narrow), aspect=Fraction(4, 3)))
    grabbed = call.grab()
    assert grabbed.shape == (360, 640, 3)
    expected = cv2.resize(bgr_from_i420(narrow), (640, 360), interpolation=cv2.INTER_LINEAR)
    assert np.corrcoef(grabbed.ravel(), expected.ravel())[0, 1] > 0.99
    call.window.close()


def test_shows_the_restored_picture_where_there_is_one(call: Call) -> None:
    sharp, soft = photo(), blurred(photo())
    call.send(decoded(soft, restored=sharp))
    assert difference(call.grab(), bgr_from_i420(sharp)) == 0


def test_compose_splits_decoded_and_restored() -> None:
    sharp, soft = photo(), blurred(photo())
    pixels = compose(decoded(soft, restored=sharp), split=True)
    assert (pixels.shape, pixels.dtype) == ((360, 640, 4), np.uint8)
    np.testing.assert_array_equal(pixels[:, :320, :3], bgr_from_i420(soft)[:, :320])
    np.testing.assert_array_equal(pixels[:, 320:, :3], bgr_from_i420(sharp)[:, 320:])
    np.testing.assert_array_equal(compose(decoded(soft), split=True)[..., :3], bgr_from_i420(soft))
    np.testing.assert_array_equal(compose(decoded(soft, restored=sharp))[..., :3], bgr_from_i420(sharp))


def test_s_splits_the_view(call: Call) -> None:
    sharp, soft = photo(), blurred(photo())
    call.send(decoded(soft, restored=sharp))
    call.press(Qt.Key.Key_S)
    grabbed = call.grab()[:320]  # above the labels
    assert difference(grabbed[:, :319], bgr_from_i420(soft)[:320, :319]) == 0
    assert difference(grabbed[:, 322:], bgr_from_i420(sharp)[:320, 322:]) == 0
    assert grabbed[:, 319:322].max(axis=1).min() > 190  # the divider
    assert difference(call.grab()[325:355, 200:440], bgr_from_i420(soft)[325:355, 200:440]) > 5  # the labels
    call.send(decoded(soft))
    assert difference(call.grab()[:320, 322:], bgr_from_i420(soft)[:320, 322:]) == 0
    call.send(decoded(soft, restored=sharp))
    call.press(Qt.Key.Key_S)
    assert difference(call.grab(), bgr_from_i420(sharp)) == 0


def test_shown_once_per_picture(call: Call) -> None:
    pictures = [decoded(photo()) for _ in range(3)]
    for count, picture in enumerate(pictures, 1):
        before = time.time()
        call.send(picture)
        assert len(call.shown) == count
        assert call.shown[-1] is picture
        assert before <= picture.shown <= time.time()
    call.window.notify()  # nothing waits
    call.window.resize(333, 333)
    call.press(Qt.Key.Key_S)
    call.window.view.repaint()
    call.settle()
    assert call.shown == pictures


def test_an_overtaken_picture_is_not_reported(call: Call) -> None:
    first, second = decoded(photo()), decoded(photo())
    call.box.put(first)
    call.window.notify()
    call.box.put(second)
    call.window.notify()
    call.settle()
    assert [p is second for p in call.shown] == [True]
    assert first.shown == 0.0
    assert call.box.dropped == 1


def test_a_picture_that_was_taken_and_never_painted_counts_as_dropped(call: Call) -> None:
    call.send(decoded(photo()))  # gives the window its size, for which Qt paints at once
    pictures = [decoded(photo()) for _ in range(3)]
    for picture in pictures:
        call.box.put(picture)
        call.window._take()  # Qt has had no time to paint
    call.settle()
    assert [picture is pictures[2] for picture in call.shown] == [False, True]
    assert call.box.dropped == 2


@pytest.mark.parametrize("how", ["hidden", "minimised"])
def test_figures_and_recording_go_on_while_nobody_looks(call: Call, how: str) -> None:
    if how == "hidden":
        call.window.hide()
    else:
        call.window.showMinimized()
    call.settle()
    pictures = [decoded(photo()), decoded(photo())]
    for picture in pictures:
        call.send(picture)
    assert call.shown == pictures
    call.window.showNormal()
    call.settle()
    assert call.shown == pictures  # painted now, but not reported again
    assert difference(call.grab(), bgr_from_i420(photo())) == 0


def test_takes_pictures_from_another_thread(call: Call) -> None:
    def feed() -> None:
        for _ in range(10):
            call.box.put(decoded(photo()))
            call.window.notify()
            time.sleep(0.005)

    thread = threading.Thread(target=feed)
    thread.start()
    while thread.is_alive():
        QtTest.QTest.qWait(5)
    call.settle()
    assert 1 <= len(call.shown) <= 10
    assert call.shown[-1].shown > 0


def test_r_switches_the_restoration_and_says_so(call: Call) -> None:
    call.send(decoded(photo()))
    plain = call.grab()
    call.press(Qt.Key.Key_R)
    assert call.restore == [False]
    assert call.window.view.notice == "restoration off"
    assert difference(call.grab()[10:40, 240:400], plain[10:40, 240:400]) > 10
    call.press(Qt.Key.Key_R)
    assert call.restore == [False, True]
    assert call.window.view.notice == "restoration on"
    assert call.window._notice_end.isActive()
    call.window._notice_end.timeout.emit()
    call.settle()
    assert difference(call.grab(), plain) == 0


def test_f_fills_the_screen_and_escape_leaves(call: Call) -> None:
    call.press(Qt.Key.Key_F)
    assert call.window.isFullScreen()
    call.press(Qt.Key.Key_F)
    assert not call.window.isFullScreen()
    call.press(Qt.Key.Key_F)
    call.press(Qt.Key.Key_Escape)
    assert not call.window.isFullScreen()
    assert call.window.isVisible()


def test_other_keys_do_nothing(call: Call) -> None:
    QtTest.QTest.keyClick(call.window, Qt.Key.Key_R, Qt.KeyboardModifier.AltModifier)
    QtTest.QTest.keyClick(call.window, Qt.Key.Key_I, Qt.KeyboardModifier.ControlModifier)
    call.press(Qt.Key.Key_X)
    assert call.window.view.figures == []
    assert call.restore == []
    assert call.window.isVisible()


@pytest.mark.parametrize("how", ["q", "close"])
def test_leaving_the_window_ends_the_loop(app: QtWidgets.QApplication, how: str) -> None:
    call = Call()

    def leave() -> None:
        if how == "q":
            QtTest.QTest.keyClick(call.window, Qt.Key.Key_Q)
        else:
            call.window.close()

    rescue = QtCore.QTimer(singleShot=True, interval=5000)
    rescue.timeout.connect(lambda: app.exit(7))
    rescue.start()
    QtCore.QTimer.singleShot(20, leave)
    assert app.exec() == 0
    assert not call.window.isVisible()


def test_notify_after_the_window_is_gone_is_harmless(app: QtWidgets.QApplication) -> None:
    call = Call()
    call.window.close()
    call.window.deleteLater()
    app.sendPostedEvents(None, QtCore.QEvent.Type.DeferredDelete.value)
    app.processEvents()
    call.window.notify()


def test_status_line_and_messages(app: QtWidgets.QApplication) -> None:
    call = Call(WAITING)
    window = call.window
    window.resize(960, 500)
    call.settle()
    assert window.view.message == WAITING.state
    assert window.status.text() == ""
    middle = call.grab()[200:280]
    assert middle.max() > 180  # letters
    assert call.grab()[:150].max() == 0
    assert "q quit" in window.keys.text()
    assert window.keys.isVisible()

    call.stats = LIVE
    call.send(decoded(photo()))  # does not wait for the timer
    assert window.view.message == ""
    assert window.status.text() == LIVE.line() == "640x360 · 30 fps · 402 kb/s · off"
    bright = call.grab().mean()
    assert window.strip.geometry().top() > window.view.geometry().bottom()  # covers nothing

    call.stats = Stats(state="call ended, waiting")
    window._refresher.timeout.emit()
    call.settle()
    assert window.view.message == "call ended, waiting"
    assert window.status.text() == ""
    assert call.grab().mean() < 0.6 * bright
    assert window._refresher.isActive()
    assert window._refresher.interval() == 500
    window.close()


def test_a_narrow_window_keeps_the_figures(call: Call) -> None:
    call.stats = LIVE
    call.window.resize(200, 200)
    call.window.refresh()
    call.settle()
    assert call.window.width() <= 200
    assert not call.window.keys.isVisible()
    assert call.window.status.text().startswith("640x360 ·")
    assert call.window.status.text().endswith("…")


def test_i_shows_all_figures_over_the_picture(call: Call) -> None:
    call.stats = replace(LIVE, restorer="small on CPU", packets=2210, lost=3, loss=0.0013, jitter_ms=3.1)
    call.send(decoded(photo()))
    plain = call.grab()
    call.press(Qt.Key.Key_I)
    assert call.window.view.figures == call.stats.rows()
    assert ("packets lost", "3, 0.1% lately") in call.window.view.figures
    shown = call.grab()
    panel = shown[20:100, 20:150]
    assert difference(panel, plain[20:100, 20:150]) > 10
    assert panel.max() > 200  # letters
    assert difference(shown[:, 560:], plain[:, 560:]) == 0, "a panel, not a veil"
    call.stats = replace(call.stats, lost=4)
    call.window._refresher.timeout.emit()
    call.settle()
    assert ("packets lost", "4, 0.1% lately") in call.window.view.figures
    call.press(Qt.Key.Key_I)
    assert call.window.view.figures == []
    assert difference(call.grab(), plain) == 0


def test_the_figures_fit_a_small_window(call: Call) -> None:
    call.send(decoded(photo()))
    call.window.resize(200, 160)
    call.settle()
    plain = call.grab()
    call.press(Qt.Key.Key_I)
    shown = call.grab()
    assert difference(shown, plain) > 10
    assert difference(shown[-8:], plain[-8:]) == 0  # nothing is cut off at the lower edge
    assert difference(shown[:, -8:], plain[:, -8:]) == 0


def test_the_image_shares_the_pixels() -> None:
    pixels = np.zeros((4, 6, 4), np.uint8)
    image = image_over(pixels)
    pixels[2, 3] = (10, 20, 30, 255)
    assert image.pixelColor(3, 2).getRgb()[:3] == (30, 20, 10)


HIDPI = """
import numpy as np
from receiver.window import create_application
from tests.test_window import Call, bgr_from_i420, decoded, photo
app = create_application()
call = Call()
picture = photo(640, 360)
call.send(decoded(picture))
call.window.view.setFixedSize(320, 180)
call.settle()
image = call.window.view.grab()
print(image.devicePixelRatio(), image.width(), image.height(), np.abs(call.grab() - bgr_from_i420(picture)).max())
"""

DEAD = """
from receiver.window import NoDisplayError, create_application
try:
    create_application()
except NoDisplayError as error:
    print("reason:", error)
"""

INTERRUPT = """
import signal
from receiver.window import QtCore, create_application, let_signals_through
app = create_application()
def interrupted(*_):
    print("interrupted", flush=True)
    app.quit()
signal.signal(signal.SIGINT, interrupted)
let_signals_through(app)
QtCore.QTimer.singleShot(0, lambda: print("running", flush=True))
print("left", app.exec(), flush=True)
"""


def python(code: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"QT_QPA_PLATFORM": "offscreen"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def test_uses_every_pixel_of_a_dense_screen() -> None:
    with python(HIDPI, QT_SCALE_FACTOR="2") as process:
        assert process.stdout is not None
        assert process.stdout.read() == "2.0 640 360 0.0\n"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="X and Wayland are Linux matters")
def test_a_dead_display_raises_instead_of_aborting() -> None:
    with python(DEAD, QT_QPA_PLATFORM="", DISPLAY=":9999", WAYLAND_DISPLAY="") as process:
        assert process.stdout is not None
        assert process.stdout.read().startswith("reason: ")
    assert process.returncode == 0


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_ctrl_c_reaches_python_in_an_idle_loop() -> None:
    with python(INTERRUPT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGINT)
        rescue = threading.Timer(20, process.kill)
        rescue.start()
        assert process.stdout.read() == "interrupted\nleft 0\n"
        rescue.cancel()
    assert process.returncode == 0


def test_the_wakeup_is_undone(app: QtWidgets.QApplication) -> None:
    before_fd = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(before_fd)
    undo = let_signals_through(app)
    inside = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(inside)
    assert inside not in (-1, before_fd)
    undo()
    undo()
    assert signal.set_wakeup_fd(before_fd) == before_fd
