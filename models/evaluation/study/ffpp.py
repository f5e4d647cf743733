"""The folders of FaceForensics++ and DeepFakeDetection, and what of them the paper tests on.

As the dataset's download script leaves them, DeepFakeDetection's 363 original videos, of 28 actors in 16 scenes, are
`original_sequences/actors/COMPRESSION/videos/ACTOR__SCENE.mp4` (`01__podium_speech_happy.mp4`), and the 1000 of
FaceForensics++ `original_sequences/youtube/COMPRESSION/videos/NUMBER.mp4` (`033.mp4`). Manipulated videos are not
looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from shared.errors import SemcallError

COMPRESSIONS = ("raw", "c0", "c23", "c40")
"""Best first. Older copies call raw, which is x264 at a rate factor of 0, c0."""

SCENES = ("podium_speech", "talking_against_wall")
"""The paper's, as file names begin them: only the first comes with a mood (`podium_speech_happy`)."""

LAST_TRAINING_ACTOR = 22
ACTORS = 28

_ACTOR = re.compile(r"([0-9]{2})__([a-z]+(?:_[a-z]+)*)\.mp4")
_YOUTUBE = re.compile(r"([0-9]{3})\.mp4")


@dataclass(frozen=True, slots=True)
class Video:
    """An original video. `identity`: the actor, 1..28, or the number of a YouTube video, 0..999, which has no scene.

    `compression`: one of COMPRESSIONS. `split`: the paper's, "train" or "test"; None for YouTube videos, which the
    paper does not use.
    """

    path: Path
    identity: int
    scene: str | None
    compression: str
    split: str | None


def find_videos(root: Path) -> list[Video]:
    """All original videos below the dataset's root, sorted by source, compression (best first) and name.

    Only names are read. Files that are named otherwise are passed over: a download leaves some half done. Raises
    SemcallError where there is no such video, or a folder cannot be read.
    """
    videos = []
    for source in ("actors", "youtube"):
        for compression in COMPRESSIONS:
            folder = root / "original_sequences" / source / compression / "videos"
            try:
                paths = sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
            except OSError as error:
                raise SemcallError(f"{folder} cannot be read ({error.strerror}); check its permissions.") from error
            found = (_video(path, source, compression) for path in paths)
            videos += [video for video in found if video is not None]
    if not videos:
        raise SemcallError(
            f"{root} holds no videos of FaceForensics++; give the folder with original_sequences/actors/COMPRESSION/"
            "videos/01__podium_speech_happy.mp4 or original_sequences/youtube/COMPRESSION/videos/033.mp4, "
            f"COMPRESSION being one of {', '.join(COMPRESSIONS)}."
        )
    return videos


def paper_split(videos: Iterable[Video], split: str = "test") -> list[Video]:
    """The paper's videos of "train" or "test": the actors' in its two scenes, each at the best compression present.

    Actors 1 to 22 train and 23 to 28 test. The paper says first and last of 28: numbers are taken, not ranks among
    the actors present, so that with part of the dataset no actor of the training is tested and results stay
    comparable. Not every actor has both scenes. Sorted by actor and scene; raises SemcallError where none is left.
    """
    if split not in ("train", "test"):
        raise ValueError(f"the splits are train and test, not {split!r}")
    best: dict[tuple[int, str], Video] = {}
    for video in videos:
        if video.scene is None or video.split != split or not video.scene.startswith(SCENES):
            continue
        key = video.identity, video.scene
        if key not in best or COMPRESSIONS.index(video.compression) < COMPRESSIONS.index(best[key].compression):
            best[key] = video
    if not best:
        first, last = (1, LAST_TRAINING_ACTOR) if split == "train" else (LAST_TRAINING_ACTOR + 1, ACTORS)
        raise SemcallError(
            f"The dataset holds none of the paper's {split} videos; download those of DeepFakeDetection's actors "
            f"{first} to {last} in original_sequences/actors, scenes {' and '.join(SCENES)}."
        )
    return [best[key] for key in sorted(best)]


def _video(path: Path, source: str, compression: str) -> Video | None:
    if source == "youtube":
        name = _YOUTUBE.fullmatch(path.name)
        return Video(path, int(name[1]), None, compression, None) if name else None
    name = _ACTOR.fullmatch(path.name)
    if not name or not 1 <= int(name[1]) <= ACTORS:
        return None
    split = "train" if int(name[1]) <= LAST_TRAINING_ACTOR else "test"
    return Video(path, int(name[1]), name[2], compression, split)
