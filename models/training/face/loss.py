"""What the teacher and the parser are held to: two questions, is it face and is it head, each where it is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.training.face.sample import Sample

STRIDE = 4


def questions(logits: Tensor) -> Tensor:
    """Logits [n, 2, h, w] of "face" and "head" (face or hair) from class logits [n, 3, h, w].

    The classes exclude each other, yet labels are often known for one question alone: between a face and the wall
    behind it may be hair or not.
    """
    background, face, hair = logits.unbind(1)
    return torch.stack([face - torch.logaddexp(background, hair), torch.logaddexp(face, hair) - background], 1)


def tensors(samples: Sequence[Sample], extra: Sequence[np.ndarray] = ()) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures uint8 RGB [n, 3, h, w] (and `extra` planes as further channels), answers and how far they are known.

    Answers and knowledge are float32 [n, 2, h/4, w/4].
    """
    pictures = np.stack([np.clip(sample.picture, 0, 255).astype(np.uint8)[..., ::-1] for sample in samples])
    if len(extra):
        pictures = np.concatenate([pictures, np.stack(extra)[..., None]], 3)
    stacked = torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)))
    answers = [np.stack([sample.face, sample.head]) for sample in samples]
    known = [np.stack([sample.face_known, sample.head_known]) for sample in samples]
    return stacked, _quartered(answers), _quartered(known)


def parsing_loss(net: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    """Cross-entropy plus soft Dice over the batch and per picture, weighted by knowledge; clear pixels count more."""
    pictures, answers, known = batch
    inputs = pictures.float().contiguous(memory_format=torch.channels_last)
    logits = questions(net(inputs).float())
    weight = ((2 * answers - 1).abs() * 0.85 + 0.15) * (known > 0.9) * (1 + 1.5 * answers)
    entropy = F.binary_cross_entropy_with_logits(logits, answers, reduction="none")
    said = torch.sigmoid(logits)

    def dice(axes: tuple[int, ...], calm: float) -> Tensor:
        both, either = (said * answers * weight).sum(axes), ((said + answers) * weight).sum(axes)
        return 1 - ((2 * both + calm) / (either + calm)).mean()

    return 3 * (entropy * weight).mean() + 0.4 * dice((0, 2, 3), 1.0) + 0.5 * dice((2, 3), 2.0)


def _quartered(planes: list[np.ndarray]) -> Tensor:
    return F.avg_pool2d(torch.from_numpy(np.stack(planes).astype(np.float32)), STRIDE)
