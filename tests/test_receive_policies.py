"""When a keyframe is asked for, what is shown after a loss, when silence counts: policies on a fake clock."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pytest

from receiver.face_region import face_region
from receiver.freeze import LONGEST_FREEZE, Freeze
from receiver.keyframes import KeyframeRequests
from receiver.watchdog import OVER, SILENT, MediaWatchdog
from shared.quantisers import coarser


@dataclass
class Clock:
    now: float = 50.0

    def __call__(self) -> float:
        return self.now


class Requests:
    """Looks for what is due every 10 ms, as receiver/rtp.py does; `asked`: seconds since the start."""

    def __init__(self, rtt: float | None = None) -> None:
        self.clock = Clock()
        self.rtt = rtt
        self.policy = KeyframeRequests(self.clock)
        self.asked: list[float] = []
        self.heard = 50.0

    def run(self, seconds: float, tainted: bool = True, coming: bool = False, silent: bool = False) -> None:
        for _ in range(round(seconds / 0.01)):
            self.heard = self.heard if silent else self.clock.now
            if self.policy.due(tainted, self.heard, coming, self.rtt):
                self.asked.append(round(self.clock.now - 50, 2))
            self.clock.now += 0.01


def gaps(times: list[float]) -> list[float]:
    return [round(later - earlier, 2) for earlier, later in itertools.pairwise(times)]


@pytest.mark.parametrize(("rtt", "first"), [(None, 0.4), (0.01, 0.4), (0.2, 0.6), (0.5, 1.2)])
def test_requests_back_off(rtt: float | None, first: float) -> None:
    requests = Requests(rtt)
    requests.run(20)
    assert requests.asked[0] == 0
    expected = [min(first * 2**power, 4.0) for power in range(len(requests.asked) - 1)]
    assert gaps(requests.asked) == pytest.approx(expected, abs=0.011)
    assert requests.policy.sent == len(requests.asked) >= 5


def test_nothing_is_asked_for_while_all_is_well() -> None:
    requests = Requests()
    requests.run(5, tainted=False)
    assert requests.asked == []


def test_an_idr_ends_the_back_off_and_the_next_loss_is_told_at_once() -> None:
    requests = Requests()
    requests.run(3)
    count = len(requests.asked)
    requests.policy.came()
    requests.run(1, tainted=False)
    assert len(requests.asked) == count
    requests.run(0.5)
    assert requests.asked[count:] == pytest.approx([4.0, 4.4], abs=0.011)


def test_an_idr_that_does_not_help_brings_no_storm() -> None:
    requests = Requests()
    for _ in range(100):
        requests.policy.want()
        requests.run(0.01, tainted=False)
        requests.policy.came()
    assert min(gaps(requests.asked)) >= 0.3


def test_what_the_decoder_wants_is_kept_until_the_idr() -> None:
    requests = Requests()
    requests.policy.want()
    requests.run(1, tainted=False)
    assert len(requests.asked) == 2
    requests.policy.came()
    requests.run(5, tainted=False)
    assert len(requests.asked) == 2


def test_no_request_while_the_idr_arrives() -> None:
    requests = Requests()
    requests.run(0.1)
    requests.run(2, coming=True)
    assert requests.asked == [0.0]
    requests.run(0.01)  # a part of it was lost for good
    assert len(requests.asked) == 2


def test_no_request_on_a_link_that_is_down() -> None:
    requests = Requests()
    requests.run(0.1)
    requests.run(10, silent=True)
    assert requests.asked == [0.0]
    requests.run(0.02)
    assert len(requests.asked) == 2


def test_freeze_holds_damaged_pictures_for_a_second() -> None:
    clock = Clock()
    freeze = Freeze("freeze", clock)
    assert freeze.shows(False)
    shown = []
    for _ in range(60):
        shown.append(freeze.shows(True))
        clock.now += 1 / 30
    held = shown.index(True)
    assert held == pytest.approx(30 * LONGEST_FREEZE, abs=1)
    assert all(shown[held:])
    assert freeze.held == held
    assert freeze.shows(False)
    assert not freeze.shows(True)  # the next loss has a time of its own


def test_show_holds_nothing() -> None:
    freeze = Freeze("show", Clock())
    assert all(freeze.shows(damaged) for damaged in (False, True, True, False))
    assert freeze.held == 0


def test_silence_is_told_and_ends_the_call() -> None:
    clock = Clock()
    watchdog = MediaWatchdog(clock)
    clock.now += SILENT - 0.1
    assert watchdog.sentence() is None
    clock.now += 0.2
    assert watchdog.sentence() == ("No media for 5 s: the sender or the link is silent; the call ends after 30 s")
    watchdog.heard()
    assert watchdog.sentence() is None
    clock.now += OVER - 0.1
    assert not watchdog.over
    clock.now += 0.2
    assert watchdog.over
    assert watchdog.silence == pytest.approx(OVER + 0.1)


def test_damaged_quantisers_are_coarser_and_show_the_same_face() -> None:
    qp = np.full((45, 80), 36, np.uint8)
    qp[11:34, 20:60] = 26
    result = coarser(qp)
    assert result.dtype == np.uint8
    assert face_region(result) == face_region(qp)
    assert np.array_equal(result, qp + 6)
    assert coarser(np.array([[0, 44, 46, 51]], np.uint8)).tolist() == [[6, 50, 51, 51]]
