"""The likely reason why a claim fails, chosen by what the cells show."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from itertools import pairwise

from models.evaluation.study.curves import factor, interval, interval_text, median_factor
from models.evaluation.study.protocol import TABLES
from models.evaluation.study.results import METRICS, Results, Setting, average

UNKNOWN = "The cells do not show why."
_MIRRORED = 7
"""Points by which mirroring a picture moves BRISQUE (docs/metrics.md)."""


def share_fails(results: Results, failed: Sequence[tuple[int, str]]) -> str:
    """Why metrics on faces (kb/s, key) do not improve with every share."""
    found = []
    for kbps in dict.fromkeys(kbps for kbps, _ in failed):
        backward = {key: _backward(results, kbps, key) for rate, key in failed if rate == kbps}
        faithful = {step for key, steps in backward.items() if key != "brisque" for step in steps}
        found += [_step_back(results, kbps, *step, backward) for step in sorted(faithful)]
        alone = [loss for step, loss in backward.get("brisque", {}).items() if step not in faithful]
        if alone:
            scale = "less" if max(alone) < _MIRRORED else "more"
            found.append(
                f"At {kbps}k, BRISQUE alone steps back, by {max(alone):.1f} points, {scale} than mirroring a picture "
                f"does ({_MIRRORED}): it knows no reference and judges likeness to photographs, not to the source."
            )
        found += [_lost(results, kbps, key) for key, steps in backward.items() if not steps][:1]
    return " ".join(found) or UNKNOWN


def _backward(results: Results, kbps: int, key: str) -> dict[tuple[int, int], float]:
    """Steps of the share over which the mean gets worse, and by how much."""
    settings = [Setting(kbps, share) for share in TABLES[kbps]]
    _, values = results.sample(results.complete(settings), settings, f"face.{key}")
    means = [sum(values[setting]) / len(values[setting]) for setting in settings]
    pairs = pairwise(zip(TABLES[kbps], means, strict=True))
    return {(a, b): abs(new - old) for (a, old), (b, new) in pairs if not METRICS[key].better(new, old)}


def _step_back(
    results: Results, kbps: int, before: int, after: int, backward: Mapping[str, Mapping[tuple[int, int], float]]
) -> str:
    one, other = Setting(kbps, before), Setting(kbps, after)
    clips = results.complete([one, other])
    names = ", ".join(METRICS[key].label for key, steps in backward.items() if (before, after) in steps)
    shares, quantisers = (results.sample(clips, [one, other], field)[1] for field in ("share", "qp_face"))
    had, gets = average(shares[one]), average(shares[other])
    if had is not None and gets is not None and had > gets:
        whose = "plain x264" if before == 0 else f"a share of {before}%"
        return (
            f"At {kbps}k, {whose} gives the face {had:.1f}% of the bits in the mean, so that a share of {after}%, "
            f"measured {gets:.1f}%, takes some away ({names})."
        )
    first, second = average(quantisers[one]), average(quantisers[other])
    if first is not None and second is not None and second < first:
        return (
            f"At {kbps}k, from {before} to {after}%, {names} step back although the face is quantised more finely "
            f"(QP {first:.1f}, then {second:.1f}): its rim or what it is predicted from got worse, or the metric "
            "is level."
        )
    return f"At {kbps}k, from {before} to {after}%, {names} step back, and the face's quantiser does not get finer."


def _lost(results: Results, kbps: int, key: str) -> str:
    """The means improve, yet most clips lose at 15%."""
    first, then = Setting(kbps, 0), Setting(kbps, 15)
    clips, values = results.sample(results.complete([first, then]), [first, then], f"face.{key}")
    pairs = zip(clips, values[then], values[first], strict=True)
    losers = [clip for clip, new, old in pairs if not METRICS[key].better(new, old)]
    rich = [clip for clip in losers if (results.value(clip, first, "share") or 0) > 15]
    close = f"; in {len(rich)} of them plain x264 gives the face more than 15% by itself" if rich else ""
    return f"At {kbps}k, {METRICS[key].label} improves in the mean, but not in {', '.join(losers)}{close}."


def share_elsewhere(best: Mapping[tuple[int, str], int], low: float, high: float, last: int, distance: str) -> str:
    """Why the best share at 400k is not in `low` .. `high`. `best`: by kb/s and area; `last`: the highest share."""
    found = []
    face, frame = best[400, "face"], best.get((400, "frame"))
    if face > high:
        end = ", the highest measured" if face == last else ""
        found.append(f"On faces the distance still falls beyond {high:g}%, to a share of {face}%{end}.")
        if frame is not None and frame < face:
            found.append(f"The background pays: on whole frames {frame}% is best.")
    elif face < low:
        found.append(f"On faces a share of {face}% is best, so more bits on the face did not lower the distance.")
    else:
        found.append("The mean has its best share in the range, single clips have theirs outside: contents differ.")
    if "not LPIPS" in distance:
        found.append("The distance is a stand-in, not the paper's LPIPS.")
    return " ".join(found)


def restorer_fails(
    name: str, means: Mapping[tuple[str, str], float | None], gains: Sequence[bool], cheap: bool
) -> str:
    """Why a restorer does not do what the paper's did. `gains`: of distance and BRISQUE on faces."""
    ssim, frame = means["face", "ssim"] or 0.0, means["frame", "distance"]
    lost = " and ".join(what for what, gained in zip(("distance", "BRISQUE"), gains, strict=True) if not gained)
    found = []
    if not cheap:
        found.append(f"{name} changes the picture much: SSIM falls by {-ssim:.4f}.")
    if lost and abs(ssim) < 0.001:
        found.append(f"{name} hardly changes faces (SSIM {ssim:+.4f}), so that {lost} cannot gain much.")
    elif lost and ssim > 0:
        found.append(f"{name} gains fidelity instead (SSIM {ssim:+.4f}), not {lost}.")
    elif lost:
        found.append(f"{name} loses SSIM ({ssim:+.4f}) without a gain in {lost}.")
    if not gains[0] and frame is not None and frame < 0:
        found.append("On whole frames, where the coding is coarser, it does lower the distance.")
    return " ".join(found) or UNKNOWN


def plain_wins(results: Results, clips: Sequence[str], ours: Setting, plain: Setting, lost: Sequence[str]) -> str:
    """Why restored faces at `ours` stay behind plain ones at `plain` in the metrics `lost`."""
    _, quantisers = results.sample(clips, [ours, plain], "qp_face")
    mine, theirs = average(quantisers[ours]), average(quantisers[plain])
    names = ", ".join(METRICS[key].label for key in lost)
    who = f"With {ours.restorer} ({names})"
    if mine is None or theirs is None:
        return f"{who}: {UNKNOWN[0].lower()}{UNKNOWN[1:]}"
    if mine > theirs + 0.5:
        return (
            f"{who}: the face is still quantised more coarsely, QP {mine:.1f} at {ours.share}% of {ours.kbps:g}k "
            f"against {theirs:.1f}, and the restorer does not make up for it."
        )
    return (
        f"{who}: the face is quantised as finely as plain's (QP {mine:.1f} against {theirs:.1f}), so that the loss "
        "is the restorer's or of pictures predicted from coarser ones."
    )


def factor_short(results: Results, share: int, wanted: float) -> str:
    """Why the bandwidth factor stays below `wanted`, read on face PSNR without restoration."""
    low, high = Setting(200, share), Setting(400, share)
    readings = {s: {c: factor(results, c, s, "face.psnr") for c in results.complete([s])} for s in (low, high)}
    medians = {s: median_factor(list(of.values())) for s, of in readings.items()}
    found = []
    first, second = medians[low], medians[high]
    if first and second and second[1] < first[0]:
        found.append(
            f"The factor falls as the rate rises (face PSNR: {interval_text(first)} at 200k, {interval_text(second)} "
            "at 400k): the more bits there are, the less the face lacks."
        )
    plain = {clip: results.value(clip, Setting(400, 0), "share") for clip in readings[high]}
    rich = [clip for clip, part in plain.items() if part is not None and part >= share / 2]
    groups = [
        [of for clip, of in readings[high].items() if (clip in rich) == wanted_rich] for wanted_rich in (True, False)
    ]
    close, far = (median_factor(group) for group in groups)
    if close and far and close[1] < far[0]:
        found.append(
            f"In clips where plain coding gives the face {share / 2:g}% by itself ({', '.join(rich)}) there is less "
            f"to shift: {interval_text(close)} at 400k against {interval_text(far)}."
        )
    unread = [reading.reason for of in readings.values() for reading in of.values() if interval(reading) is None]
    if unread:
        found.append(f"{len(unread)} readings have no value: {statistics.mode(unread)}.")
    if not found and second and second[1] < wanted:
        found.append(
            f"The share of {share}% buys a face that plain x264 has at {interval_text(second)} times the rate."
        )
    return " ".join(found) or UNKNOWN


def sizes_differ(results: Results, clip: str, kbps: int) -> str:
    """Why the files of a clip at one rate differ in size."""
    cells = [r for r in results.of_clip(clip) if r["kbps"] == kbps and r["restorer"] == "none"]
    off = max(cells, key=lambda r: abs(r["measured_kbps"] / r["target_kbps"] - 1))
    miss = 100 * (off["measured_kbps"] / off["target_kbps"] - 1)
    text = f"{clip} at share {off['share']} missed its {off['target_kbps']:g} kb/s by {miss:+.1f}%"
    if off["qp_background"] is not None and off["qp_background"] >= 49:
        return f"{text}: its background is near the coarsest quantiser (QP {off['qp_background']:.1f} of 51)."
    if off["qp_face"] is not None and off["qp_face"] <= 12:
        return f"{text}: its face is near the finest quantiser (QP {off['qp_face']:.1f})."
    if off["frames"] < 60:
        return f"{text}: {off['frames']} frames are short for the rate control."
    return f"{text}; its quantisers are inside their range, so the rate control did not settle."
