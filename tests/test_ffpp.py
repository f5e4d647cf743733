"""FaceForensics++: folders and names are understood, and the paper's split is taken from them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.evaluation.study.ffpp import COMPRESSIONS, Video, find_videos, paper_split
from shared.errors import SemcallError


def plant(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def actor(name: str, compression: str = "c23") -> str:
    return f"original_sequences/actors/{compression}/videos/{name}.mp4"


def short(videos: list[Video]) -> list[str]:
    return [f"{video.compression}/{video.path.stem}" for video in videos]


def test_the_layout_is_understood(tmp_path: Path) -> None:
    plant(
        tmp_path,
        actor("13__talking_against_wall"),
        actor("27__podium_speech_happy", "raw"),
        "original_sequences/youtube/c40/videos/033.mp4",
    )
    youtube, base = tmp_path / "original_sequences/youtube/c40/videos/033.mp4", tmp_path / "original_sequences/actors"
    assert find_videos(tmp_path) == [
        Video(base / "raw/videos/27__podium_speech_happy.mp4", 27, "podium_speech_happy", "raw", "test"),
        Video(base / "c23/videos/13__talking_against_wall.mp4", 13, "talking_against_wall", "c23", "train"),
        Video(youtube, 33, None, "c40", None),
    ]


def test_what_is_no_original_video_is_passed_over(tmp_path: Path) -> None:
    folder = "original_sequences/actors/c23/videos"
    plant(
        tmp_path,
        actor("01__kitchen_pan"),
        f"{folder}/tmp4x2k1",
        f"{folder}/02__kitchen_pan.mp4.part",
        f"{folder}/.02__kitchen_pan.mp4",
        f"{folder}/03__kitchen_pan.mp4/inside",  # a folder
        actor("01_02__kitchen_pan__YVGY8LOK"),
        actor("29__kitchen_pan"),
        actor("00__kitchen_pan"),
        actor("033"),
        "original_sequences/actors/c23/masks/videos/04__kitchen_pan.mp4",
        "original_sequences/youtube/c23/videos/05__kitchen_pan.mp4",
        "original_sequences/youtube/c23/videos/033_097.mp4",
        "manipulated_sequences/DeepFakeDetection/c23/videos/01_02__kitchen_pan__YVGY8LOK.mp4",
    )
    assert short(find_videos(tmp_path)) == ["c23/01__kitchen_pan"]


def test_the_split_takes_the_papers_scenes_and_actors(tmp_path: Path) -> None:
    scenes = "podium_speech_happy", "talking_against_wall", "talking_angry_couch", "outside_talking_still_laughing"
    plant(tmp_path, *(actor(f"{number:02}__{scene}") for number in range(1, 29) for scene in scenes))
    plant(tmp_path, "original_sequences/youtube/raw/videos/025.mp4")
    videos = find_videos(tmp_path)
    assert len(videos) == 28 * 4 + 1
    test, train = paper_split(videos), paper_split(videos, "train")
    assert short(test) == [f"c23/{number}__{scene}" for number in range(23, 29) for scene in scenes[:2]]
    assert [video.identity for video in train] == [number for number in range(1, 23) for _ in range(2)]


def test_the_best_compression_present_is_taken_for_each_video(tmp_path: Path) -> None:
    for first, compression in enumerate(COMPRESSIONS, 23):
        plant(tmp_path, *(actor(f"{number}__podium_speech_happy", compression) for number in range(first, 29)))
    plant(tmp_path, actor("28__podium_speech_sad", "c40"))
    for videos in (find_videos(tmp_path), find_videos(tmp_path)[::-1]):
        assert short(paper_split(videos)) == [
            *(f"raw/{number}__podium_speech_happy" for number in range(23, 29)),
            "c40/28__podium_speech_sad",
        ]
    (tmp_path / actor("25__podium_speech_happy", "raw")).unlink()
    assert "c0/25__podium_speech_happy" in short(paper_split(find_videos(tmp_path)))


def test_part_of_the_dataset_lets_no_training_actor_into_the_test(tmp_path: Path) -> None:
    plant(tmp_path, actor("21__podium_speech_happy"), actor("22__talking_against_wall"))
    with pytest.raises(SemcallError, match=r"none of the paper's test videos; download .* actors 23 to 28 in"):
        paper_split(find_videos(tmp_path))
    plant(tmp_path, actor("24__podium_speech_happy"))
    assert short(paper_split(find_videos(tmp_path))) == ["c23/24__podium_speech_happy"]
    with pytest.raises(ValueError, match="splits"):
        paper_split([], "val")


@pytest.mark.parametrize("inside", ["original_sequences", "original_sequences/actors/c23/videos", "elsewhere"])
def test_a_wrong_root_says_what_was_expected(tmp_path: Path, inside: str) -> None:
    plant(tmp_path, actor("24__podium_speech_happy"))
    with pytest.raises(SemcallError) as caught:
        find_videos(tmp_path / inside)
    sentence = str(caught.value)
    assert sentence.startswith(str(tmp_path / inside))
    assert "original_sequences/actors/COMPRESSION/videos/01__podium_speech_happy.mp4" in sentence
    assert sentence.count(". ") == 0


# What a file system takes as a name, and often almost what is looked for.
odd = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=40)
close = st.from_regex(r"[0-9٣]{1,3}_{1,3}[a-zA-Z_]{0,12}\.(mp4|MP4|avi)", fullmatch=True)
names = (odd | close).filter(lambda name: name not in (".", "..") and len(name.encode()) < 200)


@settings(max_examples=30, deadline=None)
@given(st.sets(names, max_size=6))
def test_no_name_breaks_the_search(strange: set[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = plant(Path(folder), actor("05__kitchen_still"), *(f"{actor('x')[:-5]}{name}" for name in strange))
        videos = find_videos(root)
        assert "c23/05__kitchen_still" in short(videos)
        for video in videos:
            assert video.path.name in strange | {"05__kitchen_still.mp4"}
            assert video.path.name == f"{video.identity:02}__{video.scene}.mp4"
            assert video.split == ("train" if video.identity <= 22 else "test")


@given(
    st.integers(1, 28), st.from_regex("[a-z]{1,9}(_[a-z]{1,9}){0,3}", fullmatch=True), st.sampled_from(COMPRESSIONS)
)
@settings(max_examples=40, deadline=None)
def test_a_right_name_is_found_with_its_parts(number: int, scene: str, compression: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (video,) = find_videos(plant(Path(folder), actor(f"{number:02}__{scene}", compression)))
        assert (video.identity, video.scene, video.compression) == (number, scene, compression)
