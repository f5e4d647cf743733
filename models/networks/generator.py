"""The paper's generator (Galteri et al. 2020, section 3; the network is that of Galteri et al. 2017).

Too slow for a CPU at 720p (300 GMAC a picture): it is what a receiver with a GPU can run, and what the fast family
is measured against.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

SLOPE = 0.2
"""Of LeakyReLU below zero."""
_START = 0.1


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a skip around them, no batch normalisation (it would tint flat pictures)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _conv(channels, channels)
        self.second = _conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """float [n, channels, h, w] to the same shape."""
        change: Tensor = self.second(F.leaky_relu(self.first(x), SLOPE))
        return x + change


class PaperGenerator(nn.Module):
    """A decoded picture to a restored one; the network itself makes only the difference (global skip).

    One convolution at full size, one of stride 2, `blocks` residual blocks at half size, nearest-neighbour upsampling
    (a transposed convolution would print a checkerboard), one convolution and the one to three channels; borders are
    replicated, so that they do not darken. `channels`: of all inner layers. The paper has 64 and 15: 1.19 M
    parameters.
    """

    def __init__(self, channels: int = 64, blocks: int = 15) -> None:
        super().__init__()
        self.entry = _conv(3, channels)
        self.down = _conv(channels, channels, stride=2)
        self.body = nn.Sequential(*(ResidualBlock(channels) for _ in range(blocks)))
        self.up = _conv(channels, channels)
        self.exit = _conv(channels, 3)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=SLOPE)
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        # Without normalisation a deep stack of full-strength blocks explodes; a small last layer starts as identity.
        for layer in (*(block.second for block in self.body if isinstance(block, ResidualBlock)), self.exit):
            layer.weight.data.mul_(_START)

    def residual(self, rgb: Tensor) -> Tensor:
        """What to add to `rgb`, float [n, 3, H, W] in 0..1; any H and W, odd ones too. Same shape, not clipped."""
        height, width = rgb.shape[2:]
        x = F.leaky_relu(self.entry(rgb - 0.5), SLOPE)  # centred: else units die in the first steps
        x = self.body(F.leaky_relu(self.down(x), SLOPE))
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")[..., :height, :width]
        change: Tensor = self.exit(F.leaky_relu(self.up(x), SLOPE))
        return change

    def forward(self, rgb: Tensor) -> Tensor:
        """The restored picture, float [n, 3, H, W], of a decoded one in 0..1.

        Clipped to 0..1 in evaluation only: in training a clip would leave no gradient where the network overshoots.
        """
        restored = rgb + self.residual(rgb)
        return restored if self.training else restored.clamp(0, 1)


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, 1, padding_mode="replicate")
