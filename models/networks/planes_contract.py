"""Any network that repairs RGB pictures, as the restorer contract has it: decoded planes in, restored planes out."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.networks.features import rgb


class PlanesContract(nn.Module):
    """An RGB network as the restorer contract, version 1, has it, but for the quantisers, which it does not use.

    What the network changes is converted to YUV and added to the decoded planes: a network that changes nothing gives
    back the very planes that came in, which a conversion to RGB and back would not.

    `net`: RGB float [1, 3, h, w], 0..1, to the same, for all h and w that are multiples of `multiple` (even).
    """

    def __init__(self, net: nn.Module, multiple: int = 2) -> None:
        super().__init__()
        self.net, self.multiple = net, multiple
        red, green, blue = 0.299, 0.587, 0.114  # BT.601
        rows = (
            [219 * red, 219 * green, 219 * blue],
            [-224 * red / 1.772, -224 * green / 1.772, 224 * (1 - blue) / 1.772],
            [224 * (1 - red) / 1.402, -224 * green / 1.402, -224 * blue / 1.402],
        )
        self.register_buffer("to_yuv", torch.tensor(rows).view(3, 3, 1, 1), persistent=False)

    def residual(self, y: Tensor, uv: Tensor, _qp: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What to add to the planes, in code values, not rounded: float, shapes of `y` and `uv`.

        `y`: float [n, 1, H, W], code values; `uv`: float [n, 2, ceil(H/2), ceil(W/2)]; quantisers are not used. While
        the network trains its pictures are not clipped, as a clip would leave no gradient where it overshoots.
        """
        return self._change(y, uv, not self.training)

    def forward(self, y: Tensor, uv: Tensor) -> tuple[Tensor, Tensor]:
        """Restored planes, uint8 as `y` [1, 1, H, W] and `uv` [1, 2, ceil(H/2), ceil(W/2)]."""
        luma, chroma = y.float(), uv.float()
        luma_change, chroma_change = self._change(luma, chroma, True)
        return _codes(luma + luma_change), _codes(chroma + chroma_change)

    def _change(self, y: Tensor, uv: Tensor, clip: bool) -> tuple[Tensor, Tensor]:
        height, width = y.shape[2], y.shape[3]
        # An even picture gains nothing here: no size is refused.
        luma = F.pad(y, (0, 2 * uv.shape[3] - width, 0, 2 * uv.shape[2] - height), mode="replicate")
        picture = rgb(luma, uv).clamp(0, 1)
        rows, columns = picture.shape[2], picture.shape[3]
        padded = picture
        if self.multiple > 2:
            padded = F.pad(picture, (0, -columns % self.multiple, 0, -rows % self.multiple), mode="replicate")
        restored = self.net(padded)
        if clip:
            restored = restored.clamp(0, 1)
        change = F.conv2d(restored[:, :, :rows, :columns] - picture, cast(Tensor, self.to_yuv))
        return change[:, :1, :height, :width], F.avg_pool2d(change[:, 1:], 2)


def _codes(values: Tensor) -> Tensor:
    return values.round().clamp(0, 255).to(torch.uint8)
