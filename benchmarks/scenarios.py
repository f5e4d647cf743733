"""The links of the network benchmark and what a call across each must show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from benchmarks.calls import Figures
from benchmarks.link import LinkSpec, parse_rate

WAN = LinkSpec(delay=0.04, queue=0.4)


@dataclass(frozen=True)
class Scenario:
    """`reach`: what ours must show, as (in words, whether it does); `steps`, `outage`: when, in seconds."""

    title: str
    forward: LinkSpec
    back: LinkSpec
    bitrate: float
    reach: tuple[tuple[str, Callable[[Figures, float], bool]], ...]
    limit: float | None = None
    steps: tuple[float, float] | None = None
    outage: tuple[float, float] | None = None


def _most(value: float | None, most: float) -> bool:
    return value is not None and value <= most


def scenarios(seconds: float) -> dict[str, Scenario]:
    """By name. A link that changes does so at fixed parts of `seconds`. `Figures` and target are what reaches see."""
    narrow, wide = seconds * 0.25, seconds * 0.45
    slow = replace(WAN, rate=parse_rate("600k"), loss=0.02, seed=2)
    steps = replace(WAN, rate=parse_rate(f"1500k,{narrow:g}:600k,{wide:g}:1500k"))
    lossy = replace(WAN, rate=parse_rate("600k"), loss=0.05, seed=2)
    outage = (seconds * 0.4, 1.0)
    broken = replace(WAN, outages=(outage,))
    return {
        "loss": Scenario(
            "600 kb/s, 2% loss", slow, WAN, 400e3,
            (
                (">= 29 fps", lambda f, r: f.fps >= 29 * r),
                ("p50 <= 80 ms", lambda f, _: _most(f.p50, 0.08)),
                ("p95 <= 200 ms", lambda f, _: _most(f.p95, 0.2)),
                ("freeze <= 0.5 s", lambda f, _: f.frozen <= 0.5),
                ("wire <= 1.25 x", lambda f, _: f.wire <= 1.25 * 400e3),
            ),
        ),
        "ceiling": Scenario(
            "600 kb/s, 2% loss", slow, WAN, 1000e3,
            (
                ("settled <= 3 s", lambda f, _: _most(f.settled, 3.0)),
                (">= 28 fps after 3 s", lambda f, r: f.fps_after_3s >= 28 * r),
                ("p95 <= 400 ms", lambda f, _: _most(f.p95, 0.4)),
            ),
            limit=600e3,
        ),
        "steps": Scenario(
            "1500, 600, 1500 kb/s", steps, WAN, 1000e3,
            (
                ("down <= 1 s", lambda f, _: _most(f.down, 1.0)),
                ("up <= 10 s", lambda f, _: _most(f.up, 10.0)),
            ),
            limit=600e3,
            steps=(narrow, wide),
        ),
        "loss-both": Scenario(
            "600 kb/s, 5% loss both ways", lossy, replace(WAN, loss=0.05, seed=7), 400e3,
            (
                (">= 28 fps", lambda f, r: f.fps >= 28 * r),
                ("freeze <= 2 s", lambda f, _: f.frozen <= 2),
            ),
        ),
        "outage": Scenario(
            "1 s outage both ways", broken, broken, 400e3,
            (
                ("back <= 1 s", lambda f, _: _most(f.back, 1.0)),
                ("at most one IDR", lambda f, _: f.keyframes_after is None or f.keyframes_after <= 1),
            ),
            outage=outage,
        ),
        "narrow": Scenario(
            "300 kb/s", replace(WAN, rate=parse_rate("300k")), WAN, 400e3,
            ((">= 15 fps", lambda f, r: f.fps >= 15 * r),),
        ),
        "loopback": Scenario(
            "loopback, no limits", LinkSpec(), LinkSpec(), 400e3,
            (
                ("p50 <= 20 ms", lambda f, _: _most(f.p50, 0.02)),
                ("p95 <= 30 ms", lambda f, _: _most(f.p95, 0.03)),
            ),
        ),
    }  # fmt: skip


def missed(scenario: Scenario, f: Figures, fps: float) -> list[str]:
    """What of the reach is not met, in its own words. `fps`: of the source."""
    return [words for words, met in scenario.reach if not met(f, min(fps / 30, 1.0))]
