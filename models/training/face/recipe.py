"""What a training run of the face parser is told: the entries of configs/face*.toml."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FaceRecipe:
    """`width`, `context`: of the parser (FaceParser); `pixels`: area of pictures in training; `input_pixels`: that to
    which calls scale theirs (0: the same; small faces gain from a little more); `start`: the ONNX file of an earlier
    parser of that size to go on from instead of afresh (`steps` may then be 0); `lean`: the parser is a lean one,
    reduced from that of `start`, a full one, before the first step; `labeller`: the ONNX file of a parser that labels
    the pictures of people instead of a teacher that is trained for it; `teacher_width`: of the crop-level teacher,
    context 6.

    `steps`, `teacher_steps`: of optimisation, `batch` samples each; `rate`, `teacher_rate`: AdamW's highest learning
    rate, on a cosine after a short rise; `ema`: decay of the averaged weights that are kept; `bf16`: the parser is
    trained in bfloat16 where that is safe: a third faster on processors that have it, many times slower on others;
    `threads`: of PyTorch; `workers`: processes that make samples; `frames`: of each person in the clips; `clips`: use
    only so many clips (0: all); `polish_steps`, `polish_rate`: a second, gentler round on hard scenes (small, turned
    heads), from the averaged weights of the first; `pictures_every`: steps between contact sheets;
    `checkpoint_every`: between checkpoints.
    """

    name: str = "face"
    seed: int = 1
    width: int = 16
    context: int = 12
    pixels: int = 57600
    input_pixels: int = 0
    start: str = ""
    lean: bool = False
    labeller: str = ""
    teacher_width: int = 16
    steps: int = 18000
    teacher_steps: int = 6000
    batch: int = 16
    rate: float = 4e-3
    teacher_rate: float = 4e-3
    polish_steps: int = 6000
    polish_rate: float = 2e-3
    ema: float = 0.998
    bf16: bool = True
    threads: int = 1
    workers: int = 1
    frames: int = 14
    clips: int = 0
    pictures_every: int = 1000
    checkpoint_every: int = 250
