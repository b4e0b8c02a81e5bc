"""Recomputes reference files from the inputs as they are stored, in float64 by PyTorch's double backward.

    python recompute.py IN_FOLDER OUT_FOLDER

Rewrites every critic_*, generator_* and train_* safetensors file of cnn32 or resnet32 with the same keys, metadata and
dtypes; init*, step*, x, y, z, eps, x_aug and cotangent are inputs and copied. Prints the worst relative difference
‖new - old‖/‖old‖ of each file and its key. Gradients that are zero but for rounding (of biases in front of batch
normalisation: under 1e-12 of the file's largest) count relative to that largest one instead, and are numbered.
Needs: pip install torch numpy safetensors
"""

import copy
import math
import sys
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benches" / "peer"))

import torch
from networks import CRITICS, GENERATORS, critic_loss, generator_loss, is_zero_centred, normalised, penalty, update_average, zero_centred
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

OPTIONAL = {"f", "grad_x", "loss_g", "loss_g_grad_x"}
METHODS = {"none", "sn", "gn", "pgn", "pgnp", "gp0", "gp1", "gn-bce", "r1", "r1r2", "sn-r1r2", "gn-r1r2", "pgn-r1r2"}


def is_input(key):
    return key.startswith(("init", "step")) or key in ("x", "y", "z", "eps", "x_aug", "cotangent")


def power_iteration(module, _):
    """Sets weight = weight_orig/σ before a call; in training mode the vectors first move by one iteration."""
    w = module.weight_orig.flatten(1)
    if module.training:
        with torch.no_grad():
            module.weight_v = F.normalize(w.T @ module.weight_u, dim=0, eps=1e-12)
            module.weight_u = F.normalize(w @ module.weight_v, dim=0, eps=1e-12)
    module.weight = module.weight_orig / (module.weight_u @ w @ module.weight_v)


def spectral(net):
    """Gives every convolution and linear layer weight_orig, weight_u and weight_v in place of weight."""
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.weight_orig = weight = module._parameters.pop("weight")
            module.register_buffer("weight_u", torch.zeros(weight.shape[0]))
            module.register_buffer("weight_v", torch.zeros(weight[0].numel()))
            module.register_forward_pre_hook(power_iteration)


def named_state(prefix, net):
    return {prefix + k: v.clone() for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}


def gradients(net):
    return {"grad." + k: p.grad for k, p in net.named_parameters()}


class Reference:
    """One file. The methods named after a kind of file return its recomputed values."""

    def __init__(self, path):
        with safe_open(path, "pt") as f:
            self.meta, self.old = f.metadata(), {k: f.get_tensor(k) for k in f.keys()}
        self.arch, self.loss = self.meta["arch"], self.meta.get("loss")
        method = self.meta.get("method", "none")
        self.consistency = method.endswith("-cr")
        if method.removesuffix("-cr") not in METHODS:
            raise ValueError(f"unknown method {method}")
        self.method = method.removesuffix("-cr").removesuffix("-bce")

    def number(self, key):
        return float(self.meta[key])

    def at(self, key, step):
        """A number that may move: half a cosine from `key` to `key`_to over `cosine_images` real images."""
        start = self.number(key)
        if key + "_to" not in self.meta:
            return start
        share = min(step * self.number("n_dis") * self.number("batch_d") / self.number("cosine_images"), 1)
        return self.number(key + "_to") + (start - self.number(key + "_to")) * 0.5 * (1 + math.cos(math.pi * share))

    def get(self, key):
        return self.old[key].double()

    def network(self, prefix, classes, first):
        """The network under `prefix`, as wide as the first tensor found in `first`."""
        net = classes[self.arch](next(self.old[prefix + k].numel() for k in first if prefix + k in self.old))
        if self.method == "sn" and classes is CRITICS:
            spectral(net)
        net.double()
        keys = [k for k in net.state_dict() if not k.endswith("num_batches_tracked")]
        if {prefix + k for k in keys} != {k for k in self.old if k.startswith(prefix)}:
            raise KeyError(f"keys under {prefix} are not those of {self.arch}: {keys}")
        net.load_state_dict({k: self.get(prefix + k) for k in keys}, strict=False)
        return net

    def networks(self, prefix_d, prefix_g):
        critic = prefix_d and self.network(prefix_d, CRITICS, ["main.0.bias", "model.0.residual.0.bias"])
        return critic, prefix_g and self.network(prefix_g, GENERATORS, ["main.9.bias", "output.0.bias"])

    def losses(self, critic, x, n, eps, x_aug, step=0):
        """f and f_hat of real and generated images in one call; loss, weighted penalty and consistency."""
        x.requires_grad_()
        f, f_hat = normalised(critic, self.method, x)
        pen = cr = torch.zeros((), dtype=torch.float64)
        if self.consistency:
            difference = normalised(critic, self.method, x_aug)[1] - f_hat[:n]
            cr = self.number("cr_weight") * difference.square().mean()
        if self.method in ("gp0", "gp1"):
            pen = self.number("penalty_weight") * penalty(critic, self.method, *x.detach().split(n), eps)
        if is_zero_centred(self.method):
            pen = self.at("gamma", step) * zero_centred(self.method, f_hat, x, n)
        return f, f_hat, critic_loss(self.loss, f_hat[:n], f_hat[n:]), pen, cr

    def critic(self):
        critic, x = self.networks("init.", None)[0], self.get("x").requires_grad_()
        eps, x_aug = self.get("eps"), self.get("x_aug")
        f, f_hat, loss, pen, cr = self.losses(critic, x, int(self.meta["n_real"]), eps, x_aug)
        loss_g = generator_loss(self.loss, *self.pairs(f_hat, int(self.meta["n_real"])))
        new = {"f": f, "f_hat": f_hat, "loss_d": loss, "penalty": pen, "cr": cr, "loss_g": loss_g}
        (new["grad_x"],) = torch.autograd.grad(f.sum(), x, retain_graph=True)
        (new["loss_g_grad_x"],) = torch.autograd.grad(loss_g, x, retain_graph=True)
        if self.loss == "relativistic":
            new["loss_g_grad_x"] = new["loss_g_grad_x"][int(self.meta["n_real"]):]
        (loss + pen + cr).backward()
        return new | gradients(critic) | named_state("after.", critic)

    def pairs(self, f_hat, n):
        """What the generator's loss takes of a batch: all f_hat, or those of generated images and of the real ones beside them."""
        return (f_hat[n:], f_hat[:n].detach()) if self.loss == "relativistic" else (f_hat,)

    def generator(self):
        generator, z = self.networks(None, "init.")[1], self.get("z")
        images = generator(z)
        (images * self.get("cotangent")).sum().backward()
        new = {"images": images, **gradients(generator), **named_state("after.", generator)}
        return new | {"images_eval": generator.eval()(z)}

    def train(self):
        critic, generator = self.networks("init_D.", "init_G.")
        average, steps, losses_d, losses_g = copy.deepcopy(generator), int(self.meta["steps"]), [], []
        adam = {"betas": (self.number("beta1"), self.number("beta2")), "eps": self.number("adam_eps")}
        adam_d, adam_g = (torch.optim.Adam(net.parameters(), **adam) for net in (critic, generator))
        for step in range(steps):
            for optimiser, lr in [(adam_d, "lr_d"), (adam_g, "lr_g")]:
                optimiser.param_groups[0]["lr"] = self.at(lr, step) * (1 - step / steps)
                optimiser.param_groups[0]["betas"] = (self.number("beta1"), self.at("beta2", step))
            for k in range(int(self.meta["n_dis"])):
                z, real, eps, x_aug = (self.get(f"step{step}.d{k}.{name}") for name in ("z", "x_real", "eps", "x_aug"))
                with torch.no_grad():
                    x = torch.cat([real, generator(z)])
                loss = sum(self.losses(critic, x, len(real), eps, x_aug, step)[2:])
                losses_d.append(self.update(adam_d, loss))
            fake = generator(self.get(f"step{step}.g.z"))
            real = self.get(f"step{step}.g.x_real") if self.loss == "relativistic" else None
            against = None if real is None else normalised(critic, self.method, real)[1].detach()
            loss = generator_loss(self.loss, normalised(critic, self.method, fake)[1], against)
            losses_g.append(self.update(adam_g, loss))
            update_average(average, generator, self.number("ema_decay"))
        new = {"losses_d": torch.stack(losses_d), "losses_g": torch.stack(losses_g)}
        nets = [("final_D.", critic), ("final_G.", generator), ("final_EMA.", average)]
        return new | {k: v for prefix, net in nets for k, v in named_state(prefix, net).items()}

    @staticmethod
    def update(optimiser, loss):
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return loss.detach()


def rewrite(path, target, kind):
    """Recomputes one file of a known architecture and returns its line."""
    reference = Reference(path)
    if reference.arch not in CRITICS:
        return None
    old, new = reference.old, getattr(reference, kind)()
    expected = {k for k in old if not is_input(k)}
    if expected - new.keys() or new.keys() - expected - OPTIONAL:
        raise KeyError(f"{path.name}: keys {sorted(expected ^ new.keys())} do not match")
    largest = max((old[k].norm().item() for k in expected if k.startswith("grad.")), default=0.0)
    tensors, worst, zeros = {k: v for k, v in old.items() if is_input(k)}, (0.0, "none"), 0
    for key in sorted(expected):
        was, now = old[key], new[key].detach()
        if was.numel() != now.numel() or (now.dim() and now.shape != was.shape):
            raise ValueError(f"{path.name}: {key} has shape {tuple(now.shape)}, not {tuple(was.shape)}")
        tensors[key] = now.reshape(was.shape).to(was.dtype).clone(memory_format=torch.contiguous_format)
        norm = was.double().norm().item()
        if key.startswith("grad.") and norm <= 1e-12 * largest:
            norm, zeros = largest, zeros + 1
        worst = max(worst, ((tensors[key].double() - was.double()).norm().item() / (norm or 1.0), key))
    save_file(tensors, target / path.name, metadata=reference.meta)
    return f"{path.stem}: {len(expected)} values, {zeros} zero gradients, worst difference {worst[0]:.1e} {worst[1]}"


def main(source, target):
    target.mkdir(parents=True, exist_ok=True)
    if source.samefile(target):
        sys.exit("the folders must differ")
    count = 0
    for path in sorted(source.glob("*.safetensors")):
        kind = path.name.split("_")[0]
        if kind in ("critic", "generator", "train") and (line := rewrite(path, target, kind)):
            print(line, flush=True)
            count += 1
    print(count, "files")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
