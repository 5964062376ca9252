"""Global attention mechanism: a gate from a position's channels, then one from its surroundings.

Liu, Shao, Hoffmann: Global Attention Mechanism: Retain Information to Enhance Channel-Spatial
Interactions, arXiv 2112.05561

    x1 = x * sigmoid(W2 relu(W1 x + b1) + b2)               (B, C, H, W), at every position
    y = x1 * sigmoid(BN(conv_k(relu(BN(conv_k x1)))))       (B, C, H, W), with biases

Both are m = max(C // reduction, 1) wide inside. With `groups` above 1 both convolutions
are grouped, and the channels shuffled between them.
"""

from torch import Tensor, nn

from nets.attention.base import FeatureGate
from nets.attention.layers import channel_mlp, conv_norm_act, fit_groups, reduced_channels
from nets.attention.options import OddInt, PositiveInt
from nets.attention.registry import register


@register("gam", family="mixed", paper="Liu, Shao, Hoffmann: GAM, 2021, arXiv 2112.05561")
class GlobalAttention(FeatureGate):
    """Global attention mechanism.

    Args:
        channels: C.
        reduction: C over the hidden width m, >= 1; 4 as in the paper.
        kernel_size: of the convolutions, odd; 7 as in the paper.
        groups: of the convolutions, >= 1, reduced to divide C and m.

    Traps:
        - With the defaults, three blocks have 8.6 million parameters, more than the network that
          carries them: compare it at equal size.
        - The channel gate sees one position and no context.
    """

    def __init__(
        self,
        channels: int,
        *,
        reduction: PositiveInt = 4,
        kernel_size: OddInt = 7,
        groups: PositiveInt = 1,
    ) -> None:
        super().__init__()
        hidden = reduced_channels(channels, reduction)
        groups = fit_groups(groups, channels, hidden)
        self.channel = channel_mlp(channels, reduction)
        narrow = conv_norm_act(channels, hidden, kernel_size, groups=groups, bias=True)
        wide = conv_norm_act(
            hidden, channels, kernel_size, groups=groups, bias=True, activation=nn.Sigmoid()
        )
        shuffle = [nn.ChannelShuffle(groups)] if groups > 1 else []
        self.spatial = nn.Sequential(*narrow, *shuffle, *wide)
        # the batch normalizations cancel the biases before them
        self.zero_gradient = ("spatial.0.bias", f"spatial.{3 + len(shuffle)}.bias")

    def _gates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The first gate and the gated features, (B, C, H, W)."""
        gate = self.channel(x).sigmoid()
        return gate, x * gate

    def gate(self, x: Tensor) -> Tensor:
        gate, gated = self._gates(x)
        return gate * self.spatial(gated)

    def forward(self, x: Tensor) -> Tensor:
        gated = self._gates(x)[1]
        return gated * self.spatial(gated)
