"""A call's figures in the terminal: the same table at both ends."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from dataclasses import replace

from rich.console import Console

from shared.stats import Stats
from shared.terminal import Board, TerminalView, plain_line, table

LIVE = Stats(
    state="live",
    width=1280,
    height=720,
    fps=29.94,
    kbps=401.7,
    face_share=0.163,
    restorer="small on CPU, whole picture",
    restore_ms=14.26,
    restored_percent=97.4,
    latency_ms=41.2,
    packets=2210,
    lost=3,
    loss=0.0013,
    nacks=4,
    retransmitted=2,
    plis=1,
    keyframes=2,
    jitter_ms=3.14,
    rtt_ms=52.4,
    pictures=300,
    dropped=5,
    held=2,
    skipped=1,
    freeze_seconds=0.44,
)
SENDING = Stats(
    role="send",
    state="live",
    width=1280,
    height=720,
    fps=29.94,
    kbps=401.7,
    target_kbps=400.0,
    link_kbps=612.3,
    wire_kbps=455.4,
    face_share=0.163,
    qp_face=24.4,
    qp_background=37.6,
    loss=0.021,
    packets=2213,
    lost=3,
    nacks=4,
    retransmitted=3,
    plis=1,
    keyframes=2,
    jitter_ms=3.14,
    rtt_ms=51.7,
    pictures=300,
    dropped=2,
    skipped=1,
)


def rendered(stats: Stats) -> str:
    console = Console(file=io.StringIO(), width=80)
    console.print(table(stats))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def shown_while(console: Console, stats: Callable[[], Stats], enough: threading.Event) -> str:
    view = TerminalView(stats, console, period=0.01)
    with view:
        assert enough.wait(10)
    view.stop()  # may be repeated
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


class Script:
    """Hands out `states` one per call, then the last for ever, and says when it has been asked often enough."""

    def __init__(self, states: list[Stats], calls: int) -> None:
        self.states, self.calls, self.count, self.enough = states, calls, 0, threading.Event()

    def __call__(self) -> Stats:
        self.count += 1
        if self.count >= self.calls:
            self.enough.set()
        return self.states[min(self.count, len(self.states)) - 1]


def cells(stats: Stats) -> dict[str, str]:
    """The table's rows as they are drawn."""
    rows = {}
    for line in rendered(stats).splitlines():
        found = [cell.strip() for cell in line.strip("│┃").split("│")]
        if len(found) == 2:
            rows[found[0]] = found[1]
    return rows


def test_the_receivers_table() -> None:
    assert "semcall receive" in rendered(LIVE)
    assert cells(LIVE) == {
        "state": "live",
        "resolution": "1280x720",
        "frame rate": "29.9 fps",
        "bitrate": "402 kb/s",
        "face share": "16%",
        "restorer": "small on CPU, whole picture",
        "restoration": "14.3 ms",
        "restored": "97%",
        "latency": "41 ms",
        "round trip": "52 ms",
        "jitter": "3.1 ms",
        "RTP packets": "2210",
        "packets lost": "3, 0.1% lately",
        "NACKs": "4, 2 retransmitted",
        "PLIs": "1",
        "keyframes": "2",
        "pictures": "300, 5 dropped, 2 held, 1 skipped",
        "frozen": "0.4 s",
    }


def test_the_senders_table() -> None:
    assert "semcall send" in rendered(SENDING)
    assert cells(SENDING) == {
        "state": "live",
        "resolution": "1280x720",
        "frame rate": "29.9 fps",
        "bitrate": "402 kb/s",
        "target": "400 kb/s",
        "link": "612 kb/s, 455 in use",
        "face share": "16%",
        "quantisers": "face 24, rest 38",
        "round trip": "52 ms",
        "jitter": "3.1 ms",
        "RTP packets": "2213",
        "packets lost": "3, 2.1% lately",
        "NACKs": "4, 3 retransmitted",
        "PLIs": "1",
        "keyframes": "2",
        "pictures": "300, 2 dropped, 1 skipped",
    }


def test_the_table_fits_a_small_terminal() -> None:
    """Rich would cut what does not fit into 24 lines."""
    for stats in (LIVE, SENDING):
        assert len(rendered(replace(stats, trouble="log stopped")).splitlines()) <= 23


def test_table_shows_a_dash_for_what_this_end_is_yet_to_learn_and_keeps_brackets() -> None:
    text = rendered(Stats(state="waiting for a caller at http://[::1]:8787"))
    assert "http://[::1]:8787" in text
    assert {name for name, value in cells(Stats(role="send")).items() if value == "–"} == set(cells(SENDING)) - {
        "state"
    }
    assert cells(Stats()).keys() == cells(LIVE).keys() - {"round trip"}, "which only a loss tells a receiver"
    assert cells(Stats(face_share=0.0))["face share"] == "0%"


def test_what_is_no_longer_written_is_shown_first() -> None:
    stats = replace(LIVE, trouble="log and recording stopped")
    assert "log and recording stopped" in rendered(stats)
    assert plain_line(stats).startswith("log and recording stopped · 1280x720")


def test_live_table_follows_the_figures_and_restores_the_cursor() -> None:
    script = Script([Stats(state="waiting"), LIVE], 6)
    console = Console(file=io.StringIO(), force_terminal=True, width=80, _environ={"TERM": "xterm"})
    text = shown_while(console, script, script.enough)
    assert "waiting" in text
    assert text.rfind("402 kb/s") > text.rfind("waiting")
    assert text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l") >= 0


def test_plain_output_has_lines_and_no_control_codes() -> None:
    script = Script([Stats(state="waiting"), Stats(state="waiting"), LIVE, LIVE, Stats(state="call ended")], 8)
    console = Console(file=io.StringIO(), width=40)
    text = shown_while(console, script, script.enough)
    assert "\x1b" not in text
    assert text.splitlines() == [
        "waiting",
        "1280x720 · 30 fps · 402 kb/s · face 16% · small on CPU, whole picture 14 ms · latency 41 ms · lost 3"
        " · restored 97% · dropped 5",
        "call ended",
    ]


def said(states: list[Stats], period: float) -> list[str]:
    """The plain lines where a board is shown `states`, one every `period` seconds."""
    console = Console(file=io.StringIO(), width=100)
    now = 100.0
    with Board(console, plain_period=5.0, clock=lambda: now) as board:
        for index, stats in enumerate(states):
            now = 100.0 + index * period
            board.show(stats, last=index == len(states) - 1)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_plain_output_repeats_during_a_call() -> None:
    assert said([LIVE] * 26, 0.5) == [plain_line(LIVE)] * 4  # at 0, 5 and 10 s and at the end


def test_plain_output_is_not_flooded_by_a_counting_state() -> None:
    states = [LIVE] + [Stats(state=f"No media for {n} s") for n in range(2, 14)]
    assert said(states, 1.0) == [plain_line(LIVE), *(f"No media for {n} s" for n in (2, 7, 12)), "No media for 13 s"]


def test_plain_output_says_nothing_twice_while_waiting() -> None:
    waiting = Stats(state="waiting for a caller")
    assert said([waiting] * 40, 1.0) == ["waiting for a caller"]


def test_plain_line_of_a_waiting_receiver_is_its_state() -> None:
    assert plain_line(Stats(state="waiting")) == "waiting"


def test_a_board_keeps_what_is_said_meanwhile_apart() -> None:
    """The sender's lines for the user come from the thread that hands over the figures."""
    console = Console(file=io.StringIO(), width=100)
    now = 0.0
    with Board(console, clock=lambda: now) as board:
        for index in range(24):
            now = index / 2
            board.show(SENDING)
            if index == 1:
                console.print("The face finder failed.")
    assert isinstance(console.file, io.StringIO)
    line = plain_line(SENDING)
    assert line == "1280x720 · 30 fps · 402 kb/s · face 16% · QP 24/38 · lost 3 · dropped 2"
    assert console.file.getvalue().splitlines() == [line, "The face finder failed.", line, line]


def test_a_boards_table_stays_when_it_is_closed() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80, _environ={"TERM": "xterm"})
    with Board(console) as board:
        board.show(Stats(role="send", state="starting"))
        board.show(SENDING)
        console.print("Said in between.", markup=False)
    board.close()
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "bold" not in text
    assert text.rfind("402 kb/s") > text.rfind("Said in between.") > text.rfind("starting")
    assert text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l") >= 0
