"""What a training run of a restorer is told: the entries of configs/restorer-*.toml."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class RestorerRecipe:
    """`network`: "fast" (FastRestorer, of `channels`, `depth`, `deep`, `chroma`, `quantisers`) or "paper"
    (PaperGenerator, of `channels` and `blocks`). `start`: the ONNX file of an earlier restorer of the fast family, of
    the same sizes or without `deep` or of fewer whole blocks, whose weights the first round begins with ("": fresh
    ones); strengths that it was exported with are in them, and come on top again at the end.

    `deep`, the convolutions at an eighth of the resolution: 0 in what ships so far.

    Rounds follow each other, each from the averaged weights of the one before, a round of 0 steps is left out:
    `pixel_steps` learn from pixels alone, which is several times as fast, and features alone hardly move a fresh
    network; `feature_steps` through a feature network; `adversarial_steps` with a discriminator besides. `rate`,
    `feature_rate`, `adversarial_rate`: their highest learning rates.

    What pulls at the restored picture, as parts of the feature gradient's norm: `pixel`; `steady` (the change to the
    next picture must be the original's; of the rounds after the first); `mesh` (errors must not repeat with the
    upsampling's period; of the rounds after the first); `perceptual` (VGG-19, of whole pictures); `background` and
    `face` (the paper's semantic pair, eq. 3-6, on feature maps masked by the sender's own mask); `adversarial` (eq.
    1-2; the discriminator learns alone for 100 steps, is let in over 300 more, and then learns at every second).
    `relative`: SqueezeNet's features of each crop count in parts of the decoded one's distance (and a quarter of the
    mean one), which takes one more look a step; else coarse crops count most. `teacher`: what the network that the
    round began with says of the crops, mirrored and turned (of the rounds after the first). `features` = false does
    without them, and the first of the others that is there takes their place; `vgg19`, `vggface`: files of the
    paper's feature networks ("": torchvision's cache, which has the first, else what stands in for them).

    The paper's schedule: `epochs` (0: `adversarial_steps` counts) is the length of the adversarial round in passes
    over all crops; `halve_epochs` (0: a rise and a cosine): rates are halved after so many, in every round;
    `momentum` (0: AdamW as it is): the first beta of a plain Adam.

    `luma_strength`, `chroma_strength`: what the finished network adds to these planes is exported times this. Pixel
    losses and averaged weights draw a residual towards nothing.

    `batch`: pairs of successive crops of `crop` samples across and down, cut out of stored ones of `stored`, both
    multiples of 16, mirrored at random and, where `turned`, on any side; `ema`: decay of the averaged weights that
    are kept; `bf16`: in bfloat16 where that is safe; `threads`: of PyTorch; `workers`: processes that make batches;
    `clips`: use only so many (0: all); `codings`: of each clip, of its first `seconds` or, with `looks`, of `seconds`
    from anywhere in another look each (looks.py), with crops of `pictures` of each; `cuts`: more codings of each, cut
    to another clip half-way; `portraits`: codings of each portrait, moved for a short clip (0: none);
    `checkpoint_every`, `pictures_every`: steps between them, of the latter 0 for an epoch.
    """

    SWITCHES: ClassVar = ("pixel", "steady", "adversarial")
    """Parts that may be 0 for none of it, though that is not their default."""

    name: str = "fast"
    seed: int = 1
    network: str = "fast"
    start: str = ""
    channels: int = 32
    depth: int = 4
    deep: int = 0
    blocks: int = 15
    chroma: bool = True
    quantisers: bool = True
    pixel_steps: int = 10000
    feature_steps: int = 20000
    adversarial_steps: int = 0
    epochs: int = 0
    halve_epochs: int = 0
    momentum: float = 0.0
    rate: float = 1.5e-3
    feature_rate: float = 1e-3
    adversarial_rate: float = 3e-4
    pixel: float = 0.5
    steady: float = 0.2
    mesh: float = 0.0
    luma_strength: float = 1.0
    chroma_strength: float = 1.0
    features: bool = True
    relative: bool = False
    teacher: float = 0.0
    turned: bool = False
    perceptual: float = 0.0
    background: float = 0.0
    face: float = 0.0
    adversarial: float = 0.1
    vgg19: str = ""
    vggface: str = ""
    batch: int = 8
    crop: int = 96
    stored: int = 128
    ema: float = 0.998
    bf16: bool = False
    threads: int = 1
    workers: int = 0
    clips: int = 0
    codings: int = 3
    seconds: float = 5.0
    pictures: int = 7
    cuts: int = 0
    looks: bool = False
    portraits: int = 0
    checkpoint_every: int = 500
    pictures_every: int = 0
