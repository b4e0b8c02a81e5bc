"""Makes the small reference files that stand in this folder: random inputs, exactly representable in float32, and what
PyTorch's double backward makes of them in float64.

    python make.py [FOLDER]

Needs: pip install torch numpy safetensors
"""

import sys
from pathlib import Path

sys.dont_write_bytecode = True

import torch
from recompute import CRITICS, GENERATORS, Reference, is_zero_centred, named_state, spectral
from safetensors.torch import save_file
from torch import nn

Z = 128
FILES = ["critic_cnn32_pgn-cr", "critic_cnn32_sn", "critic_resnet32_gp1", "critic_cnn32_pgn-r1r2", "critic_resnet32_r1",
         "generator_resnet32", "train_cnn32_gn", "train_cnn32_r1r2"]
BASE = {"cnn32": 64, "resnet32": 128}
REAL, STEPS, N_DIS, BATCH_G = 2, 2, 2, 4


def uniform(*shape):
    return 2 * torch.rand(*shape, dtype=torch.float32) - 1


class Made(Reference):
    """A reference whose inputs are drawn here."""

    def __init__(self, name):
        kind, self.arch, *method = name.split("_")
        method = method[0] if method else "none"
        self.kind, self.consistency = kind, method.endswith("-cr")
        self.method, self.loss = method.removesuffix("-cr"), "wass" if method == "gp1" else "hinge"
        if is_zero_centred(method):
            self.loss = "relativistic"
        self.meta = {"arch": self.arch, "method": method, "loss": self.loss, "size": "32", "n_real": str(REAL),
                     "penalty_weight": "10", "cr_weight": "5", "steps": str(STEPS), "n_dis": str(N_DIS),
                     "batch_d": str(REAL), "batch_g": str(BATCH_G), "lr_d": "4e-4", "lr_g": "2e-4", "beta1": "0.0",
                     "beta2": "0.9", "adam_eps": "1e-08", "ema_decay": "0.9"}
        if is_zero_centred(method):
            self.meta |= {"gamma": "2.0", "gamma_to": "0.5", "beta2_to": "0.99", "lr_d_to": "1e-4", "cosine_images": "6"}
        self.old = getattr(self, kind + "_inputs")()

    def state(self, prefix, classes):
        """The initial state of a network of 1/32 of the full width, biases and batch norm moved off their trivial values."""
        net = classes[self.arch](BASE[self.arch] // 32 * (2 if classes is GENERATORS and self.arch == "resnet32" else 1))
        if self.method == "sn" and classes is CRITICS:
            spectral(net)
            for module in net.modules():
                if hasattr(module, "weight_u"):
                    module.weight_u = nn.functional.normalize(uniform(*module.weight_u.shape), dim=0)
                    module.weight_v = nn.functional.normalize(uniform(*module.weight_v.shape), dim=0)
        for key, value in net.named_parameters():
            if value.dim() == 1:
                value.data += 0.1 * uniform(*value.shape)
            if key == "linear.weight" and self.method == "pgn-r1r2":
                # Outputs of the size of the norm, which the normalisation then does not drown.
                value.data *= 64
        return named_state(prefix, net.float())

    def critic_inputs(self):
        images = {"x": uniform(2 * REAL, 3, 32, 32), "x_aug": uniform(REAL, 3, 32, 32), "eps": torch.rand(REAL)}
        return self.state("init.", CRITICS) | images

    def generator_inputs(self):
        return self.state("init.", GENERATORS) | {"z": torch.randn(3, Z), "cotangent": torch.randn(3, 3, 32, 32)}

    def train_inputs(self):
        inputs = self.state("init_D.", CRITICS) | self.state("init_G.", GENERATORS)
        for step in range(STEPS):
            inputs[f"step{step}.g.z"] = torch.randn(BATCH_G, Z)
            if self.loss == "relativistic":
                inputs[f"step{step}.g.x_real"] = uniform(BATCH_G, 3, 32, 32)
            for k in range(N_DIS):
                drawn = {"z": torch.randn(REAL, Z), "x_real": uniform(REAL, 3, 32, 32), "eps": torch.rand(REAL),
                         "x_aug": uniform(REAL, 3, 32, 32)}
                inputs |= {f"step{step}.d{k}.{name}": value for name, value in drawn.items()}
        return inputs


def main(folder):
    for name in FILES:
        torch.manual_seed(0)
        made = Made(name)
        tensors = dict(made.old)
        for key, value in getattr(made, made.kind)().items():
            exact = key in ("f_hat", "penalty", "cr") or key.startswith("loss") and not key.endswith("grad_x")
            value = value.detach().to(torch.float64 if exact else torch.float32)
            tensors[key] = value.reshape(value.shape or (1,)).clone(memory_format=torch.contiguous_format)
        tensors = {k: v.detach().clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}
        if made.method == "sn":
            # Their gradients in the image move the vectors once more: not compared.
            tensors = {k: v for k, v in tensors.items() if k not in ("f", "grad_x", "loss_g", "loss_g_grad_x")}
        save_file(tensors, folder / f"{name}.safetensors", metadata=made.meta)
        print(name, len(tensors), "tensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent)
