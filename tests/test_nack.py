"""Requests for lost packets: which, when, how often, and what comes of them on a link that loses both ways."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from aiortc.rtp import RTCP_RTPFB_NACK, RtcpPacket, RtcpRtpfbPacket
from hypothesis import given, settings
from hypothesis import strategies as st
from test_jitter import Packet, pictures

from receiver import nack
from receiver.jitter import AccessUnit, MarkerJitterBuffer
from receiver.keyframes import KeyframeRequests
from receiver.nack import NackSchedule, irreparable


@dataclass
class Line:
    """A schedule with a clock of its own; `asked`: (time, numbers) of every request."""

    now: float = 100.0
    asked: list[tuple[float, list[int]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.schedule = NackSchedule(lambda: self.now)

    def feed(self, *numbers: int, ticks: int = 0, ssrc: int = 7) -> None:
        for number in numbers:
            if self.schedule.add(Packet(number, ticks, 0, ssrc=ssrc)):
                self.asked.append((self.now, self.schedule.missing))

    def wait(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.01)):
            self.now += 0.01
            if lost := self.schedule.due():
                self.asked.append((self.now, lost))

    @property
    def numbers(self) -> list[list[int]]:
        return [numbers for _, numbers in self.asked]

    def learn(self, rtt: float, first: int = 0, times: int = 12) -> None:
        """Losses that are repaired after one round trip each."""
        for number in range(first, first + 4 * times, 4):
            self.feed(number, number + 2, number + 3)
            self.now += rtt
            self.feed(number + 1)
        self.asked.clear()


def test_two_packets_from_behind_make_one_lost_at_once() -> None:
    line = Line()
    line.feed(0, 1, 3)
    assert line.asked == []
    line.feed(4)
    assert line.asked == [(100.0, [2])]


def test_ten_milliseconds_do_so_too() -> None:
    line = Line()
    line.feed(0, 2)
    line.wait(0.02)
    assert line.numbers == [[1]]


def test_packets_that_change_places_are_not_asked_for() -> None:
    line = Line()
    line.feed(0, 2, 1, 5, 3, 4, 7, 6)
    line.wait(1)
    assert line.asked == []
    assert line.schedule.requested == line.schedule.recovered == 0
    assert line.schedule.rtt is None


def test_tries_are_a_round_trip_apart_and_end_with_the_patience() -> None:
    line = Line()
    line.learn(0.08)
    assert line.schedule.rtt == pytest.approx(0.08)
    begun = line.now
    line.feed(100 - 52, 102 - 52, 103 - 52)
    line.wait(3)
    times = [when for when, _ in line.asked]
    assert len(times) == 3
    assert line.schedule.requested == 12 + 3
    assert min(later - earlier for earlier, later in itertools.pairwise(times)) >= 0.08
    assert times[-1] + 0.08 <= begun + line.schedule.patience


@pytest.mark.parametrize("rtt", [0.001, 0.03, 0.08, 0.2, 0.3])
def test_what_cannot_be_answered_in_time_is_not_asked_for(rtt: float) -> None:
    line = Line()
    line.learn(rtt)
    begun = line.now
    line.feed(48, 50, 51)
    line.wait(3)
    assert 2 <= len(line.asked) <= 4
    for when, _ in line.asked:
        assert when + rtt <= begun + line.schedule.patience + 1e-9


def test_the_patience_follows_the_round_trip_within_bounds() -> None:
    found = []
    for rtt in (0.001, 0.03, 0.08, 0.15, 0.3, 0.6):
        line = Line()
        line.learn(rtt)
        found.append(line.schedule.patience)
    assert found == sorted(found)
    assert found[0] == 0.15
    assert found[-1] == 0.8
    assert 3 * 0.08 < found[2] < 5 * 0.08


def test_where_packets_keep_their_order_a_loss_is_asked_for_at_once() -> None:
    line = Line()
    line.feed(0, 2, 3)
    line.wait(0.08)
    line.feed(1)  # the round trip is known now
    line.asked.clear()
    line.feed(5)
    assert line.numbers == [[4]]
    line.wait(0.01)
    line.feed(4)  # too soon for an answer: it came by itself
    line.asked.clear()
    line.feed(7)
    assert line.numbers == []
    line.feed(8)
    assert line.numbers == [[6]]


def test_a_link_that_kept_packets_in_order_long_enough_needs_no_round_trip_first() -> None:
    line = Line()
    line.feed(*range(40), 41)
    assert line.numbers == [[40]]
    line.schedule = NackSchedule(lambda: line.now)
    line.asked.clear()
    line.feed(0, 2, 1, *range(3, 40), 41)  # one changed its place
    assert line.numbers == []


def test_a_late_packet_before_any_round_trip_is_no_answer() -> None:
    line = Line()
    line.feed(*range(40), 41)
    assert line.numbers == [[40]]
    line.now += 0.002
    line.feed(40)
    assert line.schedule.rtt is None
    assert line.schedule.recovered == 0
    line.asked.clear()
    line.feed(43)
    assert line.numbers == [], "the link changes places"


def test_where_first_tries_fail_each_has_an_echo() -> None:
    line = Line()
    line.feed(0, 2, 3)
    line.wait(0.08)
    line.feed(1)
    line.feed(5)
    line.wait(0.25)  # unanswered
    line.feed(4)
    line.asked.clear()
    line.feed(7)
    line.wait(0.05)
    assert line.numbers == [[6], [6]]
    line.wait(0.03)
    line.feed(6)
    assert line.schedule.rtt == pytest.approx(0.08, abs=0.01), "of the first, not of its echo"


def test_a_round_trip_longer_than_the_first_interval_is_learnt() -> None:
    """Every packet is asked for twice before its answer comes: which of them it answers is unknown at first."""
    line = Line()
    for number in range(0, 40, 4):
        line.feed(number, number + 2, number + 3)
        line.wait(0.3)
        line.feed(number + 1)
    assert line.schedule.rtt == pytest.approx(0.3, abs=0.01)
    assert line.schedule.interval >= 0.3
    line.asked.clear()
    line.feed(40, 42, 43)
    line.wait(0.3)
    assert line.numbers == [[41]]  # once a round trip


def test_an_answer_after_a_second_try_is_no_measure() -> None:
    line = Line()
    line.learn(0.08)
    line.feed(48, 50, 51)
    line.wait(0.15)
    assert len(line.asked) == 2
    line.feed(49)  # 50 ms or 150 ms after a request
    assert line.schedule.rtt == pytest.approx(0.08)
    assert line.schedule.interval > 0.15  # until an answer is clear
    line.feed(52, 54, 55)
    line.now += 0.08
    line.feed(53)
    assert line.schedule.interval < 0.12


def test_what_the_jitter_buffer_gave_up_is_not_asked_for_but_its_answer_is_a_measure() -> None:
    line = Line()
    line.feed(0, 2, 3)
    line.schedule.forget_before(3)
    assert line.numbers == [[1]]
    line.feed(5)
    line.schedule.forget_before(5)
    line.wait(0.15)
    assert line.numbers == [[1]]
    line.feed(1)
    assert line.schedule.recovered == 0
    assert line.schedule.rtt == pytest.approx(0.15)


@pytest.mark.parametrize(("count", "ticks", "asks"), [(16, 90_000, True), (17, 90_000, False), (128, 3000, True)])
def test_an_outage_is_not_asked_for_packet_by_packet(count: int, ticks: int, asks: bool) -> None:
    assert irreparable(count, ticks) is not asks
    assert irreparable(129, 0)
    line = Line()
    line.feed(65_500)
    line.feed(*((65_501 + count + step) & 0xFFFF for step in range(3)), ticks=ticks)
    line.wait(0.05)
    assert sum(map(len, line.numbers)) == (count if asks else 0)


def test_messages_are_bounded_and_aiortc_can_pack_them() -> None:
    """Its packer wants ascending numbers, also where they wrap."""
    line = Line()
    line.feed(65_470)
    line.feed(65_470 + 128 - 0x10000 & 0xFFFF, (65_470 + 129) & 0xFFFF)
    line.wait(0.03)
    assert [len(numbers) for numbers in line.numbers] == [64, 63]
    for numbers in line.numbers:
        packed = bytes(RtcpRtpfbPacket(fmt=RTCP_RTPFB_NACK, ssrc=1, media_ssrc=2, lost=numbers))
        (parsed,) = RtcpPacket.parse(packed)
        assert isinstance(parsed, RtcpRtpfbPacket)
        assert parsed.lost == numbers
        assert len(packed) <= 300
    assert {number for numbers in line.numbers for number in numbers} == {
        number & 0xFFFF for number in range(65_471, 65_470 + 128)
    }


@pytest.mark.parametrize(("number", "ssrc"), [(3000, 8), (60_000, 7), (30_000, 7)])
def test_another_source_or_a_restart_begins_anew(number: int, ssrc: int) -> None:
    line = Line()
    line.feed(0, 2)
    line.feed(number, number + 1, ssrc=ssrc)
    line.wait(1)
    assert line.asked == []
    line.feed(number + 3, number + 4, ssrc=ssrc)
    assert line.numbers == [[number + 2]]
    assert line.schedule.ssrc == ssrc


def test_what_is_missing_is_bounded_over_many_gaps() -> None:
    line = Line()
    for number in range(0, 3000, 100):
        line.feed(number)
        assert len(line.schedule._holes) <= nack._REMEMBERED


@given(st.lists(st.tuples(st.integers(0, 65_535), st.integers(0, 2**32 - 1), st.integers(0, 1)), max_size=80))
@settings(max_examples=200, deadline=None)
def test_nonsense_is_bounded(packets: list[tuple[int, int, int]]) -> None:
    line = Line()
    for number, ticks, ssrc in packets:
        line.feed(number, ticks=ticks, ssrc=ssrc)
        line.wait(0.02)
        assert len(line.schedule._holes) <= nack._REMEMBERED
    assert all(0 < len(numbers) <= 64 for numbers in line.numbers)
    line.wait(3)
    assert line.schedule._holes == {}


# On a link


class Link:
    """A sender, a link that loses packets and requests, and our receiving policies, on one fake clock."""

    def __init__(self, loss: float, delay: float, seed: int, outage: tuple[float, float] = (9e9, 9e9)) -> None:
        self.random, self.loss, self.delay, self.outage = random.Random(seed), loss, delay, outage
        self.now = 0.0
        self.out: list[tuple[float, AccessUnit]] = []
        self.nack = NackSchedule(lambda: self.now)
        self.buffer = MarkerJitterBuffer(self.deliver, clock=lambda: self.now)
        self.buffer._parameters = True  # as if they had come
        self.keyframes = KeyframeRequests(lambda: self.now)
        self.heard = 0.0
        self.sent: dict[int, Packet] = {}
        self.idr = True
        self.idrs = 0
        self.last_idr = -9.0
        self.retransmitted = 0
        self.answered: dict[int, float] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()

    def deliver(self, unit: AccessUnit) -> None:
        if unit.keyframe and not unit.tainted:
            self.keyframes.came()
        self.out.append((self.now, unit))

    def pass_on(self, action: Callable[[], None], later: float = 0.0) -> None:
        if self.random.random() >= self.loss and not self.outage[0] <= self.now < self.outage[1]:
            self.at(self.now + later + self.delay + self.random.uniform(0, 0.004), action)

    def at(self, when: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._count), action))

    def arrive(self, packet: Packet) -> None:
        self.heard = self.now
        if self.nack.add(packet):
            self.ask(self.nack.missing)
        self.buffer.add(packet)

    def ask(self, numbers: list[int]) -> None:
        def answer() -> None:
            for number in numbers:
                if self.now - self.answered.get(number, -9.0) < 0.8 * 2 * self.delay:
                    continue  # as sender/retransmission.py has it
                self.answered[number] = self.now
                self.retransmitted += 1
                packet = self.sent[number]
                self.pass_on(lambda packet=packet: self.arrive(packet))  # type: ignore[misc]

        self.pass_on(answer)

    def send(self, index: int) -> None:
        idr = self.idr and self.now - self.last_idr >= 1  # a request waits for its time, as in sender/rate.py
        if idr:
            self.idr, self.idrs, self.last_idr = False, self.idrs + 1, self.now
        each = 9 if idr else 2
        first = len(self.sent)
        for step, packet in enumerate(pictures(1, each, first, index * 3000, keyframes=(0,) if idr else ())[0]):
            self.sent[packet.sequence_number] = packet
            self.pass_on(lambda packet=packet: self.arrive(packet), step * 0.003)  # type: ignore[misc]

    def tick(self) -> None:
        self.buffer.patience = self.nack.patience
        self.buffer.expire()
        if self.buffer.wanted is not None:
            self.nack.forget_before(self.buffer.wanted)
        if lost := self.nack.due():
            self.ask(lost)
        if self.keyframes.due(self.buffer.needs_keyframe, self.heard, self.buffer.keyframe_coming, self.nack.rtt):
            self.pass_on(lambda: setattr(self, "idr", True))

    def run(self, seconds: float) -> None:
        for index in range(round(seconds * 30)):
            self.at(index / 30, lambda index=index: self.send(index))  # type: ignore[misc]
        for index in range(round(seconds * 100)):
            self.at(index / 100 + 0.003, self.tick)
        while self._events:
            self.now, _, action = heapq.heappop(self._events)
            action()

    @property
    def clean(self) -> list[float]:
        return [when for when, unit in self.out if not unit.tainted]

    def frozen(self) -> float:
        """Seconds beyond 0.2 in every interval between two clean pictures, together."""
        return sum(max(0.0, later - earlier - 0.2) for earlier, later in itertools.pairwise(self.clean))


@pytest.mark.parametrize("seed", range(5))
def test_five_per_cent_lost_both_ways_at_eighty_milliseconds(seed: int) -> None:
    link = Link(0.05, 0.04, seed)
    link.run(20)
    assert len(link.clean) >= 28 * 20
    assert link.frozen() <= 2
    assert link.retransmitted <= 0.1 * len(link.sent)
    assert link.nack.rtt is not None
    assert 0.075 < link.nack.rtt < 0.1
    assert link.nack.recovered >= 30


@pytest.mark.parametrize("seed", range(3))
def test_two_per_cent_lost_keep_the_latency(seed: int) -> None:
    link = Link(0.02, 0.04, seed)
    link.run(20)
    late = sorted(when - unit.rtp_ticks / 90_000 for when, unit in link.out if not unit.tainted)
    assert len(late) >= 29 * 20
    assert late[len(late) // 2] <= 0.06
    assert late[len(late) * 95 // 100] <= 0.18


@pytest.mark.parametrize(("seed", "seconds"), [(1, 1.0), (2, 1.0), (3, 1.0), (4, 3.0)])
def test_after_an_outage_one_keyframe_is_enough(seed: int, seconds: float) -> None:
    back = 5.0 + seconds
    link = Link(0.0, 0.04, seed, (5.0, back))
    link.run(10 + seconds)
    assert link.idrs == 2  # the first, and one
    assert link.keyframes.sent == 1
    assert next(when for when in link.clean if when > back) < back + 0.5
    assert link.retransmitted == 0


def test_a_short_outage_is_repaired() -> None:
    link = Link(0.0, 0.04, 1, (5.0, 5.15))
    link.run(10)
    assert link.idrs == 1
    assert len(link.clean) == 300
    assert link.keyframes.sent == 0


def test_the_end_of_a_picture_is_asked_for_before_the_next_one_comes_and_not_again_then() -> None:
    line = Line()
    start = line.now
    for index in range(40):  # two packets a picture; of every tenth the first is lost, asked for, and comes
        first = 2 * index
        line.now = start + index / 30
        if index % 10 != 9:
            line.feed(first, ticks=3000 * index)
        line.now += 0.002
        line.schedule.add(Packet(first + 1, 3000 * index, 1, ssrc=7))
        if index % 10 == 9:
            line.wait(0.03)
            line.feed(first, ticks=3000 * index)
    line.asked.clear()
    line.now = start + 40 / 30
    line.feed(80, ticks=120_000)  # and its second packet is lost
    line.wait(0.02)
    assert line.numbers == [[81]]
    line.now = start + 41 / 30
    line.feed(82, ticks=123_000)
    line.wait(0.01)
    assert line.numbers == [[81]]
    before, recovered = line.schedule.rtt, line.schedule.recovered
    line.feed(81, ticks=120_000)
    assert line.schedule.recovered == recovered + 1
    assert line.schedule.rtt == before
    line.wait(0.2)
    line.schedule.add(Packet(500, 9000, 0, ssrc=8))  # another stream: nothing of this one is asked for there
    line.asked.clear()
    line.wait(0.2)
    assert line.numbers == []
