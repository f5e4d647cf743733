"""When the packet after the last one is asked for, before anything has come from behind it."""

from __future__ import annotations

import pytest

from receiver.tail import LEAST, SPAN, TailProbe

PERIOD, TRIP = 1 / 30, 0.08


class Line:
    """A probe with a clock of its own, and pictures that come every thirtieth of a second."""

    def __init__(self, lossy: bool = True) -> None:
        self.now = 100.0
        self.probe = TailProbe(lambda: self.now)
        self.number = self.ticks = 0
        self.started = self.now
        self.pictures(30)
        if lossy:
            self.probe.lost()
            self.probe.lost()

    def pictures(self, count: int, packets: int = 2, late: float = 0.0) -> None:
        """So many whole pictures, a period apart; all of them so late."""
        for _ in range(count):
            self.begin(packets, late)
            for left in range(packets - 1, 0, -1):
                self.packet(last=left == 1)

    def begin(self, packets: int = 2, late: float = 0.0) -> None:
        self.started += PERIOD
        self.now = max(self.now, self.started + late)
        self.ticks += 3000
        self.packet(last=packets == 1)

    def packet(self, last: bool) -> None:
        self.number = (self.number + 1) & 0xFFFF
        self.probe.came(self.number, self.ticks & 0xFFFFFFFF, last)
        self.now += 0.002

    def asks(self, seconds: float) -> list[tuple[float, int]]:
        """What is asked for in the next seconds, and after how long."""
        start, found = self.now, []
        while self.now < start + seconds:
            if (number := self.probe.due(TRIP)) is not None:
                found.append((self.now - start, number))
            self.now += 0.001
        return found


def test_the_rest_of_a_picture_is_asked_for_once_it_is_late() -> None:
    line = Line()
    line.begin()
    [(after, number)] = line.asks(0.1)
    assert number == line.number + 1
    assert after < PERIOD / 2  # the next picture would show it after a period


def test_a_whole_picture_is_asked_for_a_little_after_its_time() -> None:
    line = Line()
    line.pictures(1)
    due = line.started + PERIOD - line.now
    [(after, number)] = line.asks(0.1)
    assert number == line.number + 1
    assert due + LEAST - 0.002 <= after < due + PERIOD / 2


def test_it_is_asked_for_once() -> None:
    line = Line()
    line.begin()
    assert len(line.asks(1.0)) == 1
    assert line.asks(1.0) == []


@pytest.mark.parametrize("wait", [0.0, 1.0])
def test_a_link_that_loses_nothing_is_asked_nothing(wait: float) -> None:
    line = Line(lossy=False)
    line.now = line.started = line.started + wait
    line.begin()
    assert line.asks(1.0) == []
    line.probe.lost()  # one loss makes no habit
    line.begin()
    assert line.asks(1.0) == []


def test_losses_are_forgotten() -> None:
    line = Line()
    for _ in range(round((SPAN + 1) * 30)):
        line.pictures(1)
    line.begin()
    assert line.asks(0.2) == []


def test_a_source_that_pauses_is_left_alone() -> None:
    line = Line()
    line.pictures(1)
    line.now += 0.5  # nobody looked meanwhile
    assert line.asks(1.0) == []


def test_pictures_that_come_unevenly_have_more_time() -> None:
    even, uneven = Line(), Line()
    for index in range(60):
        uneven.pictures(1, late=0.015 * (index % 2))
    for line in (even, uneven):
        line.pictures(1)
    waits = [line.asks(0.2)[0][0] - (line.started + PERIOD - line.now) for line in (even, uneven)]
    assert waits[1] > waits[0]


def test_a_sender_that_leaves_every_third_picture_out_is_waited_for() -> None:
    line = Line()
    asked = []
    for index in range(60):
        if index % 3 == 2:
            line.started += PERIOD
            line.ticks += 3000
        line.pictures(1)
        asked += line.asks(line.started + PERIOD - 0.001 - line.now)
    assert asked == []


def test_guesses_in_vain_end_until_packets_are_lost_again() -> None:
    line = Line()
    asked = 0
    for _ in range(40):  # the second packet comes late each time, but comes
        line.begin()
        asked += len(line.asks(0.028))
        line.packet(last=True)
    assert 1 <= asked <= 5
    line.begin()
    assert line.asks(0.03) == []
    line.probe.lost()
    line.probe.lost()
    assert len(line.asks(0.03)) == 1


def test_streams_without_markers_are_left_alone() -> None:
    line = Line()
    for _ in range(3):
        line.begin()
        line.packet(last=False)
    assert line.asks(0.1) == []


def test_padding_after_the_end_is_no_open_picture() -> None:
    line = Line()
    line.pictures(1)
    line.packet(last=False)
    [(after, _)] = line.asks(0.1)
    assert line.started + PERIOD <= line.now - 0.1 + after + 0.001


def test_numbers_and_timestamps_wrap() -> None:
    line = Line()
    line.number, line.ticks = 0xFFFD, 0xFFFFFFFF - 2000
    line.pictures(1)
    line.begin()
    assert [number for _, number in line.asks(0.1)] == [(line.number + 1) & 0xFFFF]
