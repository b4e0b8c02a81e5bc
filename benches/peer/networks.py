"""Critics and generators cnn32 and resnet32, critic normalisations and losses in PyTorch, by ordinary autograd.

Imported by step.py beside it and by tests/golden/recompute.py; not run by itself. Parameter names are those of the
released code. Needs: pip install torch numpy safetensors
"""

import torch
from torch import nn
from torch.nn import functional as F

Z = 128


class CnnGenerator(nn.Module):
    def __init__(self, w=64):
        """8w channels at 4x4, halved at each doubling of the side."""
        super().__init__()
        self.linear = nn.Linear(Z, 4 * 4 * 8 * w)
        layers = []
        for c in [8 * w, 4 * w, 2 * w]:
            layers += [nn.BatchNorm2d(c), nn.ReLU(), nn.ConvTranspose2d(c, c // 2, 4, 2, 1)]
        self.main = nn.Sequential(*layers, nn.BatchNorm2d(w), nn.ReLU(), nn.ConvTranspose2d(w, 3, 3, 1, 1), nn.Tanh())

    def forward(self, z):
        return self.main(self.linear(z).unflatten(1, (-1, 4, 4)))


class CnnCritic(nn.Module):
    def __init__(self, w=64):
        """w channels at 32x32 up to 8w at 4x4."""
        super().__init__()
        layers = [nn.Conv2d(3, w, 3, 1, 1), nn.LeakyReLU(0.1)]
        for c in [w, 2 * w, 4 * w]:
            layers += [nn.Conv2d(c, 2 * c, 4, 2, 1), nn.LeakyReLU(0.1)]
            layers += [nn.Conv2d(2 * c, 2 * c, 3, 1, 1), nn.LeakyReLU(0.1)]
        self.main = nn.Sequential(*layers)
        self.linear = nn.Linear(8 * w * 4 * 4, 1)

    def forward(self, x):
        return self.linear(self.main(x).flatten(1))


class Block(nn.Module):
    def __init__(self, residual, shortcut):
        super().__init__()
        # In the order of the released code, which its optimisers count parameters by.
        self.shortcut, self.residual = nn.Sequential(*shortcut), nn.Sequential(*residual)

    def forward(self, x):
        return self.residual(x) + self.shortcut(x)


class ResnetGenerator(nn.Module):
    def __init__(self, w=256):
        super().__init__()
        self.linear, blocks = nn.Linear(Z, 4 * 4 * w), []
        for _ in range(3):
            residual = [nn.BatchNorm2d(w), nn.ReLU(), nn.Upsample(scale_factor=2), nn.Conv2d(w, w, 3, 1, 1)]
            residual += [nn.BatchNorm2d(w), nn.ReLU(), nn.Conv2d(w, w, 3, 1, 1)]
            blocks.append(Block(residual, [nn.Upsample(scale_factor=2), nn.Conv2d(w, w, 1)]))
        self.blocks = nn.Sequential(*blocks)
        self.output = nn.Sequential(nn.BatchNorm2d(w), nn.ReLU(), nn.Conv2d(w, 3, 3, 1, 1), nn.Tanh())

    def forward(self, z):
        return self.output(self.blocks(self.linear(z).unflatten(1, (-1, 4, 4))))


def critic_blocks(w):
    """The residual blocks of a critic of 32x32 images, up to its last activation."""
    first = [nn.Conv2d(3, w, 3, 1, 1), nn.ReLU(), nn.Conv2d(w, w, 3, 1, 1), nn.AvgPool2d(2)]
    blocks = [Block(first, [nn.AvgPool2d(2), nn.Conv2d(3, w, 1)])]
    for down in [True, False, False]:
        pool = [nn.AvgPool2d(2)] if down else []
        residual = [nn.ReLU(), nn.Conv2d(w, w, 3, 1, 1), nn.ReLU(), nn.Conv2d(w, w, 3, 1, 1)]
        blocks.append(Block(residual + pool, [nn.Conv2d(w, w, 1)] + pool if down else []))
    return nn.Sequential(*blocks, nn.ReLU())


class ResnetCritic(nn.Module):
    def __init__(self, w=128):
        super().__init__()
        self.model, self.linear = critic_blocks(w), nn.Linear(w, 1)

    def forward(self, x):
        return self.linear(self.model(x).mean((2, 3)))


GENERATORS = {"cnn32": CnnGenerator, "resnet32": ResnetGenerator}
CRITICS = {"cnn32": CnnCritic, "resnet32": ResnetCritic}


def normalised(critic, method, x):
    """f and the f_hat that enters the loss, both [N, 1], of one critic call."""
    method = method.removesuffix("-r1r2")
    if method not in ("gn", "pgn", "pgnp"):
        f = critic(x)
        return f, f
    if not x.requires_grad:
        x = x.detach().requires_grad_()
    f = critic(x)
    (g,) = torch.autograd.grad(f.sum(), x, create_graph=True)
    a = f if method == "gn" else 1 - f
    norm = (1 - g if method == "pgn" else g).flatten(1).norm(dim=1, keepdim=True)
    return f, a / (norm + a.abs())


def penalty(critic, method, real, fake, eps):
    """E(‖g‖ - 1)² (gp1) or E‖g‖² (gp0) on the images mixed by eps [N]."""
    eps = eps.view(-1, 1, 1, 1)
    x = (eps * real + (1 - eps) * fake).requires_grad_()
    (g,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    if method == "gp0":
        return g.square().flatten(1).sum(1).mean()
    return (g.flatten(1).norm(dim=1) - 1).square().mean()


def is_zero_centred(method):
    return method == "r1" or method.endswith("r1r2")


def zero_centred(method, f_hat, x, n):
    """E‖∇f_hat‖²/2 on the first n images x, real ones, and unless the method is r1 as much on the others."""
    (g,) = torch.autograd.grad(f_hat.sum(), x, create_graph=True)
    squares = g.square().flatten(1).sum(1)
    return (squares[:n].mean() + (0 if method == "r1" else squares[n:].mean())) / 2


def critic_loss(loss, real, fake):
    """Adversarial loss of the f_hat of real and generated images."""
    if loss == "hinge":
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()
    if loss == "bce":
        return F.softplus(-real).mean() + F.softplus(fake).mean()
    if loss == "wass":
        return fake.mean() - real.mean()
    if loss == "relativistic":
        return F.softplus(fake - real).mean()
    raise ValueError(f"unknown loss {loss}")


def generator_loss(loss, fake, real=None):
    """Adversarial loss of the f_hat of generated images; a loss of pairs compares them with those of real ones."""
    if loss == "relativistic":
        return F.softplus(real - fake).mean()
    return F.softplus(-fake).mean() if loss == "bce" else -fake.mean()


def update_average(average, generator, decay):
    """Exponential moving average of every floating-point entry of the state."""
    state = generator.state_dict()
    for name, entry in average.state_dict().items():
        if entry.is_floating_point():
            entry.copy_(decay * entry + (1 - decay) * state[name])
