"""The virtual link with a clock of its own: nothing faster than its rate, nothing out of order unless asked for."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.calls import Call, Seen, figures
from benchmarks.link import Link, LinkCounts, LinkSpec, parse_rate
from benchmarks.scenarios import Scenario, missed, scenarios
from benchmarks.stock import stamp, stamped
from shared.errors import SemcallError


def through(
    spec: LinkSpec, arrivals: list[tuple[float, int]], start: float = 100.0
) -> tuple[Link, list[float | None]]:
    """What a link of `spec` makes of media datagrams that come at these seconds, of these sizes."""
    link = Link(spec)
    return link, [link.push(start + when, size, media=True) for when, size in arrivals]


def test_a_link_without_limits_passes_everything_at_once() -> None:
    link, out = through(LinkSpec(), [(0, 1000), (0, 1000), (1, 20)])
    assert out == [100, 100, 101]
    assert (link.counts.packets, link.counts.bytes, link.counts.lost) == (3, 2020, 0)


def test_datagrams_wait_for_those_before_them() -> None:
    link, out = through(LinkSpec(rate=parse_rate("80k"), delay=0.5), [(0, 1000), (0, 1000), (1, 1000)])
    assert out == pytest.approx([100.6, 100.7, 101.6])
    assert link.counts.wait(50) == 0
    assert link.counts.wait(100) == pytest.approx(0.1)
    assert LinkCounts().wait(50) == 0


def test_a_full_queue_drops_what_comes() -> None:
    link, out = through(LinkSpec(rate=parse_rate("80k"), queue=0.25), [(0, 1000)] * 6)
    assert out[:3] == pytest.approx([100.1, 100.2, 100.3])
    assert out[3:] == [None] * 3
    assert (link.counts.tail_dropped, link.counts.lost) == (3, 0)


def test_the_rate_changes_in_the_middle_of_a_datagram() -> None:
    _, out = through(LinkSpec(rate=parse_rate("8k,1:16k,2:4k")), [(0.5, 1000), (3, 1000)], start=0)
    # The link's clock begins with the first: 1 s at 8 kb/s; the other begins at 2.5 by it, at 4 kb/s.
    assert out == pytest.approx([1.5, 5.0])
    _, out = through(LinkSpec(rate=parse_rate("8k,1:16k,2:4k")), [(0, 4000)], start=0)
    assert out == pytest.approx([4.0])  # 8 + 16 + 2 * 4 kbit


def test_before_the_first_media_datagram_it_only_delays() -> None:
    spec = LinkSpec(rate=parse_rate("8k"), delay=0.04, loss=1.0, outages=((0, 9),))
    link = Link(spec)
    assert [link.push(now, 1000) for now in (0.0, 0.0, 5.0)] == [0.04, 0.04, 5.04]
    assert link.counts.packets == 0
    assert not link.begun
    assert link.push(6.0, 1000, media=True) is None
    assert link.push(6.0, 1000) is None  # from now on for all


def test_patterns_count_media_only() -> None:
    link = Link(LinkSpec(lose={0, 2}))
    media = [True, False, True, False, True, True]
    out = [link.push(float(now), 100, kind) for now, kind in enumerate(media)]
    assert [when is None for when in out] == [True, False, False, False, True, False]
    assert (link.counts.media, link.counts.lost) == (4, 2)
    _, out = through(LinkSpec(lose=lambda number: number % 3 == 1), [(0, 100)] * 6)
    assert [when is None for when in out] == [False, True, False] * 2


def test_an_outage_loses_what_comes_and_not_what_is_under_way() -> None:
    _, out = through(LinkSpec(delay=0.5, outages=((1, 1), (4, 0.5))), [(t / 2, 10) for t in range(10)], start=0)
    assert [index for index, when in enumerate(out) if when is None] == [2, 3, 8]
    assert out[1] == 1.0


def test_loss_is_as_probable_as_told_and_the_same_every_time() -> None:
    many = [(index / 100, 500) for index in range(5000)]
    link, out = through(LinkSpec(loss=0.05), many)
    assert 200 < link.counts.lost < 300
    assert through(LinkSpec(loss=0.05), many)[1] == out
    assert through(LinkSpec(loss=0.05, seed=2), many)[1] != out


def test_reordered_datagrams_are_overtaken_and_none_is_lost() -> None:
    _, out = through(LinkSpec(delay=0.04, reorder=0.2), [(index / 100, 500) for index in range(200)])
    times = [when for when in out if when is not None]
    assert len(times) == 200
    overtaken = sum(b < a for a, b in itertools.pairwise(times))
    assert 20 < overtaken < 60


def test_what_is_lost_has_used_the_link() -> None:
    _, out = through(LinkSpec(rate=parse_rate("80k"), lose={0}), [(0, 1000), (0, 1000)], start=0)
    assert out == [None, pytest.approx(0.2)]


def _in_turn(gaps: list[tuple[float, int]]) -> list[tuple[float, int]]:
    times = itertools.accumulate(gap for gap, _ in gaps)
    return [(when, size) for when, (_, size) in zip(times, gaps, strict=True)]


arrivals = st.lists(st.tuples(st.floats(0, 0.2), st.integers(20, 1500)), min_size=1, max_size=60).map(_in_turn)
specs = st.builds(
    LinkSpec,
    rate=st.sampled_from(["50k", "600k", "1500k,1:60k", "100k,1:1M,2:50k"]).map(parse_rate),
    delay=st.floats(0, 0.3),
    jitter=st.floats(0, 0.1),
    loss=st.floats(0, 1),
    queue=st.floats(0, 1),
    outages=st.lists(st.tuples(st.floats(0, 3), st.floats(0, 1)), max_size=2).map(tuple),
    seed=st.integers(0, 99),
)


@given(specs, arrivals)
def test_order_delay_queue_and_counts_always_hold(spec: LinkSpec, datagrams: list[tuple[float, int]]) -> None:
    link, out = through(spec, datagrams, start=0)
    passed = [when for when in out if when is not None]
    assert passed == sorted(passed)
    slowest = min(rate for _, rate in spec.rate)
    for (came, size), left in zip(datagrams, out, strict=True):
        if left is not None:
            assert left >= came + spec.delay
            # What is before it waited `queue` at most; jitter of one before may hold it, but no longer.
            assert left - came <= spec.queue + size * 8 / slowest + spec.delay + spec.jitter + 1e-6
    counts = link.counts
    assert counts.packets == len(datagrams) == len(passed) + counts.lost + counts.tail_dropped
    assert counts.bytes == sum(size for _, size in datagrams) == sum(size for _, size in counts.entered)
    assert all(0 <= wait <= spec.queue for wait in counts.waits)


@given(arrivals, st.sampled_from(["50k", "300k", "1500k,1:60k", "100k,1:1M,2:50k"]))
def test_the_rate_is_never_exceeded(datagrams: list[tuple[float, int]], rate: str) -> None:
    spec = LinkSpec(rate=parse_rate(rate), queue=math.inf)
    _, out = through(spec, datagrams, start=0)
    first, sizes = datagrams[0][0], [size for _, size in datagrams]
    times = [when - first for when in out if when is not None]

    def capacity(end: float) -> float:
        ends = [start for start, _ in spec.rate[1:]] + [math.inf]
        return sum(max(min(end, stop) - start, 0) * bits for (start, bits), stop in zip(spec.rate, ends, strict=True))

    for index, start in enumerate(times):
        for other in range(index + 1, len(times)):
            sent = sum(sizes[index + 1 : other + 1]) * 8
            assert sent <= capacity(times[other]) - capacity(start) + 1e-3


@pytest.mark.parametrize("text", ["", "fast", "600k,500k", "600k,10:300k,5:100k", "5:600k", "0k", "-3k", "600k,"])
def test_what_is_no_schedule_is_refused(text: str) -> None:
    with pytest.raises(SemcallError, match="no rate schedule"):
        parse_rate(text)


# The figures of a call


def call(shown: list[float], damaged: tuple[int, ...] = (), entered: list[tuple[float, int]] | None = None) -> Call:
    """A call of 10 s at 10 fps, its media begun at 1000; picture n was shown at `shown[n]` after that, or never."""
    sent = [(1000 + index / 10, index in (0, 45)) for index in range(101)]
    seen = [
        Seen(1000 + index / 10, 1000 + when - 0.001, 1000 + when, index in damaged)
        for index, when in enumerate(shown)
        if not math.isnan(when)
    ]
    return Call(sent, seen, 1000.0, entered or [])


def test_a_smooth_call() -> None:
    smooth = call([index / 10 + 0.05 for index in range(101)])
    assert smooth.length == pytest.approx(10)
    assert smooth.fps() == pytest.approx(10, abs=0.11)
    assert smooth.frozen() == pytest.approx(0, abs=1e-6)
    assert smooth.latency(50) == pytest.approx(0.049)
    assert smooth.keyframes() == 1
    assert smooth.keyframes(5) == 0
    assert smooth.back(4) == pytest.approx(0.05)


def test_damaged_pictures_do_not_count_and_freeze() -> None:
    poor = call([index / 10 + 0.05 for index in range(101)], damaged=tuple(range(40, 60)))
    assert poor.fps() == pytest.approx(8, abs=0.11)
    assert poor.frozen() == pytest.approx(2.1)  # the whole gap, as W3C counts
    assert poor.back(4.5) == pytest.approx(1.55)
    assert poor.fps(6.0) == pytest.approx(10, abs=0.3)


def test_what_is_missing_at_the_end_is_a_freeze() -> None:
    broken = call([index / 10 + 0.05 if index < 50 else math.nan for index in range(101)])
    assert broken.frozen() == pytest.approx(5.1)
    assert broken.back(6) is None


def test_a_call_that_showed_nothing() -> None:
    nothing = call([])
    assert (nothing.fps(), nothing.latency(50), nothing.back(1)) == (0, None, None)
    assert nothing.frozen() == pytest.approx(10)


def test_pictures_that_newer_ones_replaced_were_decoded() -> None:
    burst = call([index / 10 + 0.05 if index % 2 else math.nan for index in range(101)])
    seen = [replace(picture, replaced=index) for index, picture in enumerate(burst.seen)]
    assert replace(burst, seen=seen).fps() == pytest.approx(10, abs=0.2)
    assert burst.latency(100) == pytest.approx(0.049)
    late = replace(burst, seen=seen)
    assert late.latency(49) == pytest.approx(0.049)
    assert [late.latency(percent) for percent in (52, 100)] == pytest.approx([0.149] * 2)  # with the picture after it
    assert burst.fps() == pytest.approx(5, abs=0.2)


def test_rates_are_seen_to_settle_fall_and_rise() -> None:
    # 100 datagrams a second: 1 Mb/s up to 3 s, then 500 kb/s, from 8 s on 900.
    entered = [(n / 100, 1250 if n < 300 else 625 if n < 800 else 1125) for n in range(1000)]
    it = call([], entered=entered)
    assert it.wire(0, 1) == pytest.approx(1e6)
    assert it.settled(950e3) == pytest.approx(1.3, abs=0.21)  # from there two seconds hold no more than that
    assert it.settled(400e3) is None
    assert it.fell(2.5, 600e3) == pytest.approx(0.4, abs=0.11)
    assert it.fell(2.5, 100e3) is None
    assert it.rose(7.5, 0.9 * 1e6) == pytest.approx(0.5, abs=0.11)
    assert it.rose(7.5, 1.1e6) is None
    steps = figures(it, LinkCounts(), limit=600e3, steps=(2.5, 7.5))
    assert steps.down == pytest.approx(0.4, abs=0.11)
    assert steps.up == pytest.approx(0.5, abs=0.11)
    assert figures(it, LinkCounts(), outage=(4.0, 1.0)).keyframes_after == 1


def test_what_a_call_misses_is_named() -> None:
    loss = scenarios(20)["loss"]
    good = replace(figures(call([]), LinkCounts()), fps=29.5, p50=0.07, p95=0.15, frozen=0.2, wire=480e3)
    assert missed(loss, good, 30) == []
    poor = replace(good, fps=24.9, p95=None, wire=520e3)
    assert missed(loss, poor, 30) == [">= 29 fps", "p95 <= 200 ms", "wire <= 1.25 x"]
    assert missed(loss, poor, 25) == ["p95 <= 200 ms", "wire <= 1.25 x"]  # the source has no more


@pytest.mark.parametrize("scenario", scenarios(20).values(), ids=scenarios(20).keys())
def test_a_call_without_figures_misses_every_reach(scenario: Scenario) -> None:
    nothing = replace(figures(call([]), LinkCounts()), frozen=20.0, wire=9e6, keyframes_after=2)
    assert missed(scenario, nothing, 30) == [words for words, _ in scenario.reach]


@pytest.mark.parametrize("seconds", [1_700_000_000.123, 1_795_866_251.9996, 1.0])
def test_stock_pictures_say_when_they_were_taken(seconds: float) -> None:
    i420 = np.random.default_rng(1).integers(0, 256, (720 * 3 // 2, 1280), np.uint8)
    noisy = np.clip(stamp(i420, seconds).astype(int) + np.random.default_rng(2).integers(-40, 41, i420.shape), 0, 255)
    read = stamped(noisy.astype(np.uint8)[:720], seconds + 0.25)
    assert read == pytest.approx(seconds, abs=0.002)
    assert stamped(i420[:720], seconds) is None
