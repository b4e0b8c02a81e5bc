"""Critic and generator biggan32 in PyTorch, by ordinary autograd: class-conditional batch normalisation, a generator with
spectral normalisation throughout, and a critic with the class projection.

Imported by step.py beside it; not run by itself. Both are called with classes [N]. Needs: pip install torch
"""

import torch
from networks import Z, Block, critic_blocks
from torch import nn
from torch.nn import functional as F

CLASSES = 10


class ConditionalNorm(nn.Module):
    """Batch normalisation whose scale and shift are those of the image's class."""

    def __init__(self, c):
        super().__init__()
        self.batchnorm2d = nn.BatchNorm2d(c, affine=False)
        self.gain, self.bias = nn.Embedding(CLASSES, c), nn.Embedding(CLASSES, c)

    def forward(self, x, y):
        scale, shift = (e(y)[:, :, None, None] for e in (self.gain, self.bias))
        return self.batchnorm2d(x) * (1 + scale) + shift


class GeneratorBlock(nn.Module):
    def __init__(self, w):
        super().__init__()
        self.bn1, self.bn2 = ConditionalNorm(w), ConditionalNorm(w)
        self.conv1, self.conv2, self.side = nn.Conv2d(w, w, 3, 1, 1), nn.Conv2d(w, w, 3, 1, 1), nn.Conv2d(w, w, 1)

    def forward(self, x, y):
        up = lambda x: F.interpolate(x, scale_factor=2)
        return self.conv2(F.relu(self.bn2(self.conv1(up(F.relu(self.bn1(x, y)))), y))) + self.side(up(x))


class BigganGenerator(nn.Module):
    def __init__(self, w=256):
        super().__init__()
        self.linear = nn.Linear(Z, 4 * 4 * w)
        self.blocks = nn.ModuleList(GeneratorBlock(w) for _ in range(3))
        self.output = nn.Sequential(nn.BatchNorm2d(w), nn.ReLU(), nn.Conv2d(w, 3, 3, 1, 1), nn.Tanh())
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.utils.spectral_norm(module, eps=1e-6)

    def forward(self, z, y):
        x = self.linear(z).unflatten(1, (-1, 4, 4))
        for block in self.blocks:
            x = block(x, y)
        return self.output(x)


class BigganCritic(nn.Module):
    def __init__(self, w=256):
        super().__init__()
        self.blocks, self.linear = critic_blocks(w), nn.Linear(w, 1)
        self.embedding = nn.Embedding(CLASSES, w)

    def forward(self, x, y):
        h = self.blocks(x).sum((2, 3))
        return self.linear(h) + (self.embedding(y) * h).sum(1, keepdim=True)


def classes(n, device):
    return torch.arange(n, device=device) % CLASSES
