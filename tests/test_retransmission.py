"""What is sent again: a share of the rate, once per round trip."""

from __future__ import annotations

from sender.retransmission import LEAST_BURST, RetransmissionGovernor


class Bench:
    def __init__(self, rate: float = 400e3) -> None:
        self.now, self.rate = 100.0, rate
        self.governor = RetransmissionGovernor(lambda: self.rate, clock=lambda: self.now)


def test_a_packet_goes_once_per_round_trip() -> None:
    bench = Bench()
    assert bench.governor.allow(7, 1200, 0.1)
    bench.now += 0.05
    assert not bench.governor.allow(7, 1200, 0.1)
    assert bench.governor.allow(8, 1200, 0.1)
    bench.now += 0.05
    assert bench.governor.allow(7, 1200, 0.1)
    assert (bench.governor.retransmitted, bench.governor.refused) == (3, 1)


def test_without_a_measured_round_trip_it_waits_a_tenth_of_a_second() -> None:
    bench = Bench()
    assert bench.governor.allow(7, 1200)
    bench.now += 0.07
    assert not bench.governor.allow(7, 1200)
    bench.now += 0.03
    assert bench.governor.allow(7, 1200)


def test_a_flood_of_requests_takes_a_quarter_of_the_rate() -> None:
    bench = Bench()
    sent = 0
    for step in range(1000):  # ten seconds of NACKs for 50 packets each
        bench.now += 0.01
        sent += sum(1200 for index in range(50) if bench.governor.allow((step * 50 + index) % 65536, 1200, 0.08))
    assert 0.95 * 0.25 * 400e3 * 10 / 8 < sent < 0.25 * 400e3 * 10 / 8 + LEAST_BURST + 1200
    assert bench.governor.refused > 45_000
    assert len(bench.governor._sent) <= 512


def test_a_lost_picture_may_go_at_once_and_the_share_follows_the_rate() -> None:
    bench = Bench(rate=100e3)
    bench.now += 60
    assert sum(bench.governor.allow(n, 1200) for n in range(20)) == 8
    bench.rate = 4e6
    bench.now += 0.02
    assert sum(bench.governor.allow(n, 1200) for n in range(100, 120)) == 2
    bench.now += 60  # a longer burst where the link is wide
    assert sum(bench.governor.allow(n, 1200) for n in range(200, 300)) == 41


def test_a_rate_that_falls_takes_the_burst_with_it() -> None:
    bench = Bench(rate=4e6)
    bench.now += 1
    assert bench.governor.allow(1, 1200)
    bench.rate = 100e3
    assert sum(bench.governor.allow(n, 1200) for n in range(2, 60)) == 8
