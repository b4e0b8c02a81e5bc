"""Times training steps of the released formulation in PyTorch (double backward), float32, at full size.

    python step.py --arch cnn32 --method pgn --what critic --repeat 5 --threads 2
    python step.py --arch cnn32 --method pgn --what whole --repeat 5 --device cuda --precision tf32 --burst 20

critic: one update on 64 real and 64 given generated images. generator: one update of 128 images. whole: n_dis critic
updates (1 for cnn32, 5 for the others), each with its 64 images generated, one generator update, and the moving average.
biggan32 is timed at the same numbers, not at its published ones (4, 50 and 50).
On a GPU images and weights are channels last, cuDNN chooses its algorithms by measurement, and a time is an equal share of
--burst updates between two waits. --compile gives both networks to torch.compile.
Prints one line of JSON after one warm-up (on a GPU one burst). Inputs are random; weights have PyTorch's default
initialisation. Needs: pip install torch numpy safetensors
"""

import argparse
import copy
import json
import resource
import statistics
import sys
import time

sys.dont_write_bytecode = True

import torch
from biggan import BigganCritic, BigganGenerator, classes
from networks import (CRITICS, GENERATORS, Z, critic_loss, generator_loss, is_zero_centred, normalised, penalty,
                      update_average, zero_centred)
from torch import nn

BATCH_D, BATCH_G = 64, 128
N_DIS = {"cnn32": 1, "resnet32": 5, "biggan32": 5}
LR_D, LR_G = {"cnn32": 2e-4, "resnet32": 4e-4, "biggan32": 2e-4}, 2e-4


class Trainer:
    def __init__(self, arch, method, device, compiled):
        self.method, self.n_dis, self.device, self.arch = method, N_DIS[arch], device, arch
        self.loss = "wass" if method == "gp1" else "hinge"
        self.generator = {**GENERATORS, "biggan32": BigganGenerator}[arch]().to(device)
        self.critic = {**CRITICS, "biggan32": BigganCritic}[arch]().to(device)
        if device != "cpu":
            for net in (self.generator, self.critic):
                net.to(memory_format=torch.channels_last)
        if method == "sn":
            for module in self.critic.modules():
                if isinstance(module, (nn.Conv2d, nn.Linear)):
                    nn.utils.spectral_norm(module, eps=1e-12)
        self.average = copy.deepcopy(self.generator)
        self.adam_d = torch.optim.Adam(self.critic.parameters(), lr=LR_D[arch], betas=(0.0, 0.9))
        self.adam_g = torch.optim.Adam(self.generator.parameters(), lr=LR_G, betas=(0.0, 0.9))
        images = (torch.rand(BATCH_D, 3, 32, 32, device=device) * 2 - 1 for _ in range(2))
        self.real, self.fake = (x if device == "cpu" else x.contiguous(memory_format=torch.channels_last) for x in images)
        compile_or_not = torch.compile if compiled else lambda net: net
        self.call_critic, self.call_generator = compile_or_not(self.critic), compile_or_not(self.generator)

    def f(self, x):
        if self.arch != "biggan32":
            return self.call_critic(x)
        return self.call_critic(x, classes(len(x), self.device))

    def images(self, n):
        z = torch.randn(n, Z, device=self.device)
        return self.call_generator(z, classes(n, self.device)) if self.arch == "biggan32" else self.call_generator(z)

    def critic_step(self, fake=None):
        fake = self.fake if fake is None else fake
        self.critic.requires_grad_(True)
        x = torch.cat([self.real, fake]).requires_grad_(is_zero_centred(self.method))
        _, f_hat = normalised(self.f, self.method, x)
        loss = critic_loss(self.loss, f_hat[:BATCH_D], f_hat[BATCH_D:])
        if is_zero_centred(self.method):
            loss = loss + zero_centred(self.method, f_hat, x, BATCH_D)
        if self.method == "gp1":
            loss = loss + 10 * penalty(self.f, self.method, self.real, fake, torch.rand(BATCH_D, device=self.device))
        self.adam_d.zero_grad()
        loss.backward()
        self.adam_d.step()

    def generator_step(self):
        self.critic.requires_grad_(False)
        images = self.images(BATCH_G)
        loss = generator_loss(self.loss, normalised(self.f, self.method, images)[1])
        self.adam_g.zero_grad()
        loss.backward()
        self.adam_g.step()

    def whole_step(self):
        for _ in range(self.n_dis):
            with torch.no_grad():
                fake = self.images(BATCH_D)
            self.critic_step(fake)
        self.generator_step()
        update_average(self.average, self.generator, 0.9999)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", choices=sorted(N_DIS), required=True)
    parser.add_argument("--method", choices=["none", "sn", "gn", "pgn", "gp1", "r1r2"], required=True)
    parser.add_argument("--what", choices=["critic", "generator", "whole"], required=True)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["f32", "tf32"], help="tf32 if not given, on a GPU")
    parser.add_argument("--burst", type=int, default=1)
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    on_gpu = args.device != "cpu"
    if on_gpu:
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = args.precision != "f32"
    step = getattr(Trainer(args.arch, args.method, args.device, args.compile), args.what + "_step")
    wait = torch.cuda.synchronize if on_gpu else lambda: None
    times = []
    for n in range(1 + args.repeat):
        start = time.perf_counter()
        for _ in range(args.burst):
            step()
        wait()
        times.append((time.perf_counter() - start) / args.burst)
        if n == 0 and on_gpu:
            torch.cuda.reset_peak_memory_stats()
    times = times[1:]
    unit = 1 if sys.platform == "darwin" else 1024
    peak = torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    print(json.dumps({"arch": args.arch, "method": args.method, "what": args.what, "device": args.device,
                      "median_s": statistics.median(times), "times_s": times, "peak_bytes": peak}))


if __name__ == "__main__":
    main()
