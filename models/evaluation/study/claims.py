"""The paper's claims, each checked on the measured cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from models.evaluation.study import reasons
from models.evaluation.study.curves import FACTOR_METRICS, FACTOR_RATES, factor, interval_text, known_factors
from models.evaluation.study.curves import median_factor as median_of
from models.evaluation.study.paper import FACTOR, SHARE_FROM, SHARE_TO, SIZES, Paper
from models.evaluation.study.protocol import TABLES
from models.evaluation.study.results import METRICS, NONE, OF_PAPER, Results, Setting, average
from models.evaluation.study.sheet import signed
from models.evaluation.study.tables import setting_label

REPRODUCED, PARTLY, FAILED, UNMEASURED = "reproduced", "partly", "not reproduced", "not measured"
SMALL_SSIM_COST = 0.02
"""Mean loss of SSIM that still counts as small."""
MATCH = {"distance": 0.02, "brisque": 0.05, "ssim": 0.005, "psnr": 0.005}
"""How much worse than plain's value, as a fraction of it, still matches it."""
EQUAL_SIZE = 0.01

_ORDER = (REPRODUCED, PARTLY, FAILED, UNMEASURED)
_FACTOR_SHARE = 45


@dataclass(frozen=True, slots=True)
class Claim:
    """`verdict`: "reproduced", "partly", "not reproduced" or "not measured"; `figures` show it; `reason`: why not."""

    letter: str
    text: str
    verdict: str
    figures: tuple[str, ...] = ()
    reason: str = ""


def check_claims(results: Results, paper: Paper, distance: str) -> list[Claim]:
    """Claims a to f, in order. `distance`: the name of the perceptual distance that was measured."""
    return [
        _share_helps(results),
        _best_share(results, paper, distance),
        _restorer_helps(results),
        _beats_plain(results),
        _factor(results, paper),
        _sizes(results, paper),
    ]


def _share_helps(results: Results) -> Claim:
    text = "On faces, the metrics improve with the face's share of the bits."
    figures, votes, failed = [], [], []
    for kbps, shares in TABLES.items():
        settings = [Setting(kbps, share) for share in shares]
        clips = results.complete(settings)
        for key, metric in METRICS.items():
            kept, values = results.sample(clips, settings, f"face.{key}")
            means = [average(values[setting]) for setting in settings]
            known = [mean for mean in means if mean is not None]
            if len(known) < len(means):
                continue
            wins = sum(map(metric.better, values[Setting(kbps, 15)], values[settings[0]]))
            steady = all(metric.better(after, before) for before, after in pairwise(known))
            holds = metric.better(known[-1], known[0]) and 2 * wins > len(kept)
            ends = f"{metric.show(known[0])} at share 0, {metric.show(known[-1])} at {shares[-1]}"
            figures.append(
                f"{kbps}k, {metric.label}: {ends}; "
                f"{'' if steady else 'not '}better with every step; share 15 beats 0 in {wins} of {len(kept)} clips."
            )
            if key in OF_PAPER:
                votes += [holds, steady]
                if not (holds and steady):
                    failed.append((kbps, key))
    verdict = _verdict(votes)
    figures.append(f"The verdict is on the paper's metrics: {', '.join(METRICS[key].label for key in OF_PAPER)}.")
    reason = reasons.share_fails(results, failed) if failed else ""
    return Claim("a", text, verdict, tuple(figures) if votes else (), reason)


def _best_share(results: Results, paper: Paper, distance: str) -> Claim:
    low, high = paper.claim(SHARE_FROM), paper.claim(SHARE_TO)
    text = f"Shares of {low:g} to {high:g}% are best for the perceptual distance (the paper: LPIPS) on faces."
    figures, best, within = [], {}, None
    for kbps, shares in sorted(TABLES.items()):
        settings = [Setting(kbps, share) for share in shares]
        for area in ("face", "frame"):
            kept, values = results.sample(results.complete(settings), settings, f"{area}.distance")
            if not kept or not all(values.values()):
                continue
            picks = [min(settings, key=lambda s: values[s][k]).share for k in range(len(kept))]
            mean = min(settings, key=lambda s: average(values[s]) or 0).share
            inside = sum(low <= share <= high for share in picks)
            best[kbps, area] = mean
            if (kbps, area) == (400, "face"):
                within = 2 * inside > len(picks)
            place = "faces" if area == "face" else "whole frames"
            figures.append(
                f"{kbps}k, {place}: {mean}% is best in the mean; in {inside} of {len(picks)} clips in range."
            )
    if within is None:
        return Claim("b", text, UNMEASURED)
    figures.append(f"The distance is {distance}; the verdict is on faces at 400k, measured beyond the range.")
    verdict = _verdict([low <= best[400, "face"] <= high, within])
    reason = "" if verdict == REPRODUCED else reasons.share_elsewhere(best, low, high, TABLES[400][-1], distance)
    return Claim("b", text, verdict, tuple(figures), reason)


def _restorer_helps(results: Results) -> Claim:
    text = "The restorer improves the perceptual distance and BRISQUE at a small cost in SSIM."
    figures, verdicts, why = [], [], []
    for name in results.restorers:
        changes = {(area, key): _restored(results, name, area, key) for area in ("face", "frame") for key in OF_PAPER}
        means = {place: average(values) for place, values in changes.items()}
        if any(means["face", key] is None for key in OF_PAPER):
            continue
        for (area, key), values in changes.items():
            if values:
                wins = sum(METRICS[key].better(value, 0) for value in values)
                change = signed(sum(values) / len(values), METRICS[key].digits)
                figures.append(
                    f"{name}, {area}, {METRICS[key].label}: {change}, better in {wins} of {len(values)} clips."
                )
        gains = []
        for key in ("distance", "brisque"):
            values = changes["face", key]
            gains.append((average(values) or 0) < 0 and 2 * sum(value < 0 for value in values) > len(values))
        cheap = (means["face", "ssim"] or 0) >= -SMALL_SSIM_COST
        verdicts.append(
            REPRODUCED if all(gains) and cheap else PARTLY if all(gains) or (any(gains) and cheap) else FAILED
        )
        if verdicts[-1] != REPRODUCED:
            why.append(reasons.restorer_fails(name, means, gains, cheap))
    if not verdicts:
        return Claim("c", text, UNMEASURED)
    figures.append(
        f"Means over the shares at 400k; the verdict is on faces, by the restorer that does best; small is up to "
        f"{SMALL_SSIM_COST:g} of SSIM."
    )
    verdict = min(verdicts, key=_ORDER.index)
    return Claim("c", text, verdict, tuple(figures), "" if verdict == REPRODUCED else " ".join(why))


def _restored(results: Results, name: str, area: str, key: str) -> list[float]:
    """Per clip the mean change over the shares at 400k."""
    plain = [Setting(400, share) for share in TABLES[400]]
    restored = [setting._replace(restorer=name) for setting in plain]
    kept, values = results.sample(results.complete(plain + restored), plain + restored, f"{area}.{key}")
    if not all(values.values()):
        return []
    pairs = list(zip(restored, plain, strict=True))
    return [sum(values[a][k] - values[b][k] for a, b in pairs) / len(pairs) for k in range(len(kept))]


def _beats_plain(results: Results) -> Claim:
    text = "Restored 400k matches or beats plain 1000k on faces."
    figures, verdicts, why = [], [], []
    plain = Setting(1000, 0)
    for name in results.restorers:
        settings = [Setting(400, share, name) for share in TABLES[400] if share]
        clips = results.complete([plain, *settings])
        samples = {key: results.sample(clips, [plain, *settings], f"face.{key}")[1] for key in MATCH}
        distances = {setting: average(samples["distance"][setting]) for setting in settings}
        measured = {setting: value for setting, value in distances.items() if value is not None}
        if not measured:
            continue
        pick = min(measured, key=lambda setting: measured[setting])
        votes, lost = [], []
        for key, part in MATCH.items():
            ours, theirs = average(samples[key][pick]), average(samples[key][plain])
            if ours is None or theirs is None:
                continue
            loss = (theirs - ours) * (1 if METRICS[key].higher else -1)
            matched = loss <= part * abs(theirs)
            metric, result = METRICS[key], "better" if loss < 0 else "matched" if matched else "worse"
            values = f"{metric.show(ours)} against {metric.show(theirs)}"
            figures.append(f"{setting_label(pick)}, {metric.label}: {values}, {result}.")
            if key in OF_PAPER:
                votes.append(matched)
                lost += [] if matched else [key]
        verdicts.append(_verdict(votes))
        if lost:
            why.append(reasons.plain_wins(results, clips, pick, plain, lost))
    if not verdicts:
        return Claim("d", text, UNMEASURED)
    figures.append("The share is the one with the best distance; the verdict is on the paper's three metrics.")
    parts = ", ".join(f"{100 * part:g}% in {METRICS[key].name}" for key, part in MATCH.items())
    figures.append(f"Matched: worse by at most {parts} of plain's value.")
    verdict = min(verdicts, key=_ORDER.index)
    return Claim("d", text, verdict, tuple(figures), "" if verdict == REPRODUCED else " ".join(why))


def _factor(results: Results, paper: Paper) -> Claim:
    wanted = paper.claim(FACTOR)
    text = f"For the same quality of faces, plain x264 needs {wanted:g} times the rate."
    figures, verdicts = [], []
    for name in [NONE, *results.restorers]:
        reached: dict[str, bool] = {}
        for key in FACTOR_METRICS:
            for kbps in FACTOR_RATES:
                setting = Setting(kbps, _FACTOR_SHARE, name)
                readings = [factor(results, clip, setting, f"face.{key}") for clip in results.complete([setting])]
                ends = median_of(readings)
                if ends is None:
                    continue
                reached[key] = reached.get(key, False) or ends[0] >= wanted
                figures.append(
                    f"{setting_label(setting)}, {METRICS[key].name}: median {interval_text(ends)} "
                    f"over {known_factors(readings)} of {len(readings)} clips."
                )
        verdicts.append(_verdict(list(reached.values())))
    verdict = min(verdicts, key=_ORDER.index)
    if verdict == UNMEASURED:
        return Claim("e", text, UNMEASURED)
    figures.append(
        f"The verdict is on the best restorer, or none: each metric must reach {wanted:g} at one of the rates."
    )
    reason = "" if verdict == REPRODUCED else reasons.factor_short(results, _FACTOR_SHARE, wanted)
    return Claim("e", text, verdict, tuple(figures), reason)


def _sizes(results: Results, paper: Paper) -> Claim:
    text = f"The files compared have one size within {100 * EQUAL_SIZE:g}% (the paper's: {paper.claim(SIZES):g}%)."
    gaps = {}
    for kbps, shares in TABLES.items():
        settings = [Setting(kbps, share) for share in shares]
        for clip in results.complete(settings):
            sizes = [size for s in settings if (size := results.value(clip, s, "bytes"))]
            if len(sizes) == len(settings):
                gaps[clip, kbps] = max(sizes) / min(sizes) - 1
    if not gaps:
        return Claim("f", text, UNMEASURED)
    equal = sum(gap <= EQUAL_SIZE for gap in gaps.values())
    verdict = REPRODUCED if equal == len(gaps) else PARTLY if 2 * equal >= len(gaps) else FAILED
    worst = max(gaps, key=lambda place: gaps[place])
    figures = (
        f"Largest difference between the shares of a clip and rate: {100 * gaps[worst]:.2f}% "
        f"({worst[0]} at {worst[1]}k); within {100 * EQUAL_SIZE:g}% in {equal} of {len(gaps)}.",
    )
    return Claim("f", text, verdict, figures, "" if verdict == REPRODUCED else reasons.sizes_differ(results, *worst))


def _verdict(votes: Sequence[bool]) -> str:
    if not votes:
        return UNMEASURED
    return REPRODUCED if all(votes) else PARTLY if any(votes) else FAILED
