"""Blocks as users write them: good ones, and one for every mistake."""

import torch
from torch import nn


class Good(nn.Module):
    def __init__(self, channels, *, kernel: int = 3):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, kernel, padding=kernel // 2)

    def forward(self, x):
        return x * self.conv(x).sigmoid()


class Strided(nn.Module):
    def __init__(self, channels):
        super().__init__()

    def forward(self, x):
        return x[:, :, ::2]


class Pair(Strided):
    def forward(self, x):
        return x, x


class NoChannels(nn.Module):
    def __init__(self):
        super().__init__()


class Needs(Good):
    def __init__(self, channels, kernel: int):
        super().__init__(channels, kernel=kernel)


class Hidden(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.convs = [nn.Conv2d(channels, channels, 1)]

    def forward(self, x):
        return self.convs[0](x)


class InPlace(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x):
        x *= 2
        return x


class OverBatch(Good):
    def forward(self, x):
        return super().forward(x) * x.softmax(0)


class Dead(Good):
    def __init__(self, channels):
        super().__init__(channels)
        self.unused = nn.Parameter(torch.randn(3))


class Fixed(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.mix = nn.Linear(13 * 9, 13 * 9)

    def forward(self, x):
        return self.mix(x.flatten(2)).view_as(x)


class Exits(Good):
    def __init__(self, channels):
        raise SystemExit(0)


class Sized(Good):
    def __init__(self, channels, *, size: tuple[int, int] = (3, 3)):
        super().__init__(channels)
        self.size = size


class Apart(Good):
    def __init__(self, channels):
        super().__init__(channels)
        self.body = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels))

    def forward(self, x):
        y = self.body[0](x)
        return y + self.body[1](y)


class Values(Good):
    def __init__(self, channels):
        super().__init__(channels)
        self.kernel = int(torch.ones(3).sum())


class Deep(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv3d(1, 1, 3, padding=1)

    def forward(self, x):
        return x * self.conv(x[:, None])[:, 0].sigmoid()
