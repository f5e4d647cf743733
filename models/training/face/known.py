"""A parser that is there already, in the teacher's place: it labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from shared.errors import SemcallError
from shared.inference import open_session


class Known(nn.Module):
    """An exported parser as a module without weights: class logits of pictures float [n, 3 or more, h, w], 0..255.

    Channels after the third, what a teacher is told, are left out. Raises SemcallError where `path` is no such file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._session, _ = open_session(path, "face parser", 1, lambda _: None)
        names = [value.name for value in (*self._session.get_inputs(), *self._session.get_outputs())]
        if names != ["rgb", "logits"]:
            raise SemcallError(f"{path} is no face parser; set `labeller` to the ONNX file of one.")

    def forward(self, pictures: Tensor) -> Tensor:
        """See the class."""
        rgb = np.ascontiguousarray(pictures[:, :3].round().to(torch.uint8).numpy())
        said = [self._session.run(["logits"], {"rgb": one[None]})[0] for one in rgb]
        return torch.from_numpy(np.concatenate(said))
