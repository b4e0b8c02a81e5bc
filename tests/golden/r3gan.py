"""Makes the reference files of r3gan32 in this folder from the released modules, in float64 and in plain PyTorch: random inputs that
are exact in float32, no parameter at zero, 3 channels, inside of blocks 6 in 2 groups.

    python r3gan.py REPOSITORY [FOLDER]

REPOSITORY: a clone of https://github.com/brownvc/R3GAN. Needs: pip install torch numpy safetensors
"""

import sys
import types
from pathlib import Path

sys.dont_write_bytecode = True

import torch
from recompute import Reference
from safetensors.torch import save_file
from torch.nn import functional as F

FILES = ["critic_r3gan32_r1r2", "generator_r3gan32", "train_r3gan32_r1r2"]
CHANNELS, GROUPS, STAGES, BLOCKS, EXPANSION = 3, 2, 4, 2, 2
LATENT, CLASSES, IMAGES, STEPS = 64, 10, 2, 4


def released(repository):
    """Its networks, with the resampling and the activation that need no compiled operator."""
    sys.path.insert(0, str(repository))
    ops = types.ModuleType("torch_utils.ops")
    ops.upfirdn2d = ops.bias_act = None
    sys.modules |= {"torch_utils": types.ModuleType("torch_utils"), "torch_utils.ops": ops}
    from R3GAN import FusedOperators, Resamplers

    FusedOperators.BiasedActivation = FusedOperators.BiasedActivationReference
    for name in ("InterpolativeUpsampler", "InterpolativeDownsampler"):
        setattr(Resamplers, name, getattr(Resamplers, name + "Reference"))
    from R3GAN import Networks

    return Networks


def uniform(*shape):
    return 2 * torch.rand(*shape, dtype=torch.float32) - 1


def images(n):
    """Of different colours, so that what a loss of pairs takes from one is not what it gives to the other."""
    return uniform(n, 3, 32, 32) + 2 * uniform(n, 3, 1, 1)


class OfClasses:
    """A network whose calls are all of the same classes, over and over, and whose state has no filters."""

    def __init__(self, net, labels):
        self.net, self.labels = net, labels

    def __call__(self, x):
        out = self.net(x, self.labels.repeat(len(x) // len(self.labels), 1))
        return out.unsqueeze(1) if out.dim() == 1 else out

    def parameters(self):
        return self.net.parameters()

    def named_parameters(self):
        return self.net.named_parameters()

    def state_dict(self):
        return {k: v for k, v in self.net.state_dict().items() if not k.endswith("Resampler.Kernel")}

    def eval(self):
        return self


class R3gan(Reference):
    """A reference whose networks are the released ones and whose inputs are drawn here."""

    def __init__(self, name, networks):
        self.kind, self.arch, *method = name.split("_")
        self.released, self.method, self.loss, self.consistency = networks, "".join(method) or "none", "relativistic", False
        self.meta = {"arch": self.arch, "method": self.method, "loss": self.loss, "size": "32", "n_real": str(IMAGES),
                     "penalty_weight": "10", "cr_weight": "5", "gamma": "0.05"}
        self.old = getattr(self, self.kind + "_inputs")()

    def critic_inputs(self):
        # Pairs are of one class. Nothing reads the last two.
        inputs = {"x": images(2 * IMAGES), "x_aug": torch.zeros(IMAGES, 3, 1, 1), "eps": torch.rand(IMAGES)}
        return self.state("init.", "critic") | inputs | {"y": torch.randint(CLASSES, (IMAGES,)).repeat(2)}

    def generator_inputs(self):
        inputs = {"z": torch.randn(IMAGES, LATENT), "cotangent": torch.randn(IMAGES, 3, 32, 32)}
        return self.state("init.", "generator") | inputs | {"y": torch.randint(CLASSES, (IMAGES,))}

    def train_inputs(self):
        self.meta |= {"steps": str(STEPS), "n_dis": "1", "batch_d": str(IMAGES), "batch_g": str(IMAGES), "lr_d": "2e-4",
                      "lr_d_to": "5e-5", "lr_g": "2e-4", "lr_g_to": "5e-5", "beta1": "0.0", "beta2": "0.9", "beta2_to": "0.99",
                      "gamma_to": "0.005", "cosine_images": "7", "adam_eps": "1e-08", "ema_decay": "0.9"}
        inputs = self.state("init_D.", "critic") | self.state("init_G.", "generator")
        y = torch.randint(CLASSES, (IMAGES,))
        for step in range(STEPS):
            inputs |= {f"step{step}.d0.{name}": y.clone() for name in ("y_real", "y_fake")} | {f"step{step}.g.y": y.clone()}
            for name in (f"step{step}.d0.", f"step{step}.g."):
                inputs |= {name + "z": torch.randn(IMAGES, LATENT), name + "x_real": images(IMAGES)}
            inputs |= {f"step{step}.d0.eps": torch.rand(IMAGES), f"step{step}.d0.x_aug": torch.zeros(IMAGES, 3, 1, 1)}
        return inputs

    def net(self, kind):
        per_stage = [CHANNELS] * STAGES, [GROUPS] * STAGES, [BLOCKS] * STAGES, EXPANSION, CLASSES
        if kind == "critic":
            net = self.released.Discriminator(*per_stage, CHANNELS)
        else:
            net = self.released.Generator(LATENT, *per_stage, LATENT)
        for stage in net.MainLayers:
            stage.DataType = torch.float64
        return net

    def state(self, prefix, kind):
        """Parameters as they begin, but for those that begin at zero."""
        net = self.net(kind)
        for key, value in net.named_parameters():
            if not value.any():
                value.data = uniform(*value.shape) / 2
        return {prefix + k: v.clone() for k, v in OfClasses(net, None).state_dict().items()}

    def networks(self, *prefixes):
        y = F.one_hot(self.old["step0.g.y" if self.kind == "train" else "y"][:IMAGES], CLASSES).double()
        nets = []
        for prefix, kind in zip(prefixes, ("critic", "generator")):
            if not prefix:
                nets.append(None)
                continue
            net = self.net(kind).double()
            net.load_state_dict({k.removeprefix(prefix): v for k, v in self.old.items() if k.startswith(prefix)}, strict=False)
            nets.append(OfClasses(net, y))
        return nets


def main(repository, folder):
    networks = released(repository)
    for name in FILES:
        torch.manual_seed(0)
        made = R3gan(name, networks)
        tensors = dict(made.old)
        for key, value in getattr(made, made.kind)().items():
            exact = key in ("f_hat", "penalty", "cr") or key.startswith("loss") and not key.endswith("grad_x")
            value = value.detach().to(torch.float64 if exact else torch.float32)
            tensors[key] = value.reshape(value.shape or (1,))
        tensors = {k: v.detach().clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}
        save_file(tensors, folder / f"{name}.safetensors", metadata=made.meta)
        print(name, len(tensors), "tensors")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).resolve().parent)
