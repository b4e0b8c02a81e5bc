"""Times training steps of the released formulation in PyTorch (double backward), float32 on the CPU, at full size.

    python step.py --arch cnn32 --method pgn --what critic --repeat 5 --threads 2

critic: one update on 64 real and 64 given generated images. generator: one update of 128 images. whole: n_dis critic
updates (1 for cnn32, 5 for resnet32), each with its 64 images generated, one generator update, and the moving average.
Prints one line of JSON after one warm-up. Inputs are random; weights have PyTorch's default initialisation.
Needs: pip install torch numpy safetensors
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
from networks import CRITICS, GENERATORS, Z, critic_loss, generator_loss, normalised, penalty, update_average
from torch import nn

BATCH_D, BATCH_G = 64, 128
N_DIS = {"cnn32": 1, "resnet32": 5}
LR_D, LR_G = {"cnn32": 2e-4, "resnet32": 4e-4}, 2e-4


class Trainer:
    def __init__(self, arch, method):
        self.method, self.n_dis = method, N_DIS[arch]
        self.loss = "wass" if method == "gp1" else "hinge"
        self.generator, self.critic = GENERATORS[arch](), CRITICS[arch]()
        if method == "sn":
            for module in self.critic.modules():
                if isinstance(module, (nn.Conv2d, nn.Linear)):
                    nn.utils.spectral_norm(module, eps=1e-12)
        self.average = copy.deepcopy(self.generator)
        self.adam_d = torch.optim.Adam(self.critic.parameters(), lr=LR_D[arch], betas=(0.0, 0.9))
        self.adam_g = torch.optim.Adam(self.generator.parameters(), lr=LR_G, betas=(0.0, 0.9))
        self.real, self.fake = (torch.rand(BATCH_D, 3, 32, 32) * 2 - 1 for _ in range(2))

    def critic_step(self, fake=None):
        fake = self.fake if fake is None else fake
        self.critic.requires_grad_(True)
        _, f_hat = normalised(self.critic, self.method, torch.cat([self.real, fake]))
        loss = critic_loss(self.loss, f_hat[:BATCH_D], f_hat[BATCH_D:])
        if self.method == "gp1":
            loss = loss + 10 * penalty(self.critic, self.method, self.real, fake, torch.rand(BATCH_D))
        self.adam_d.zero_grad()
        loss.backward()
        self.adam_d.step()

    def generator_step(self):
        self.critic.requires_grad_(False)
        images = self.generator(torch.randn(BATCH_G, Z))
        loss = generator_loss(self.loss, normalised(self.critic, self.method, images)[1])
        self.adam_g.zero_grad()
        loss.backward()
        self.adam_g.step()

    def whole_step(self):
        for _ in range(self.n_dis):
            with torch.no_grad():
                fake = self.generator(torch.randn(BATCH_D, Z))
            self.critic_step(fake)
        self.generator_step()
        update_average(self.average, self.generator, 0.9999)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", choices=sorted(CRITICS), required=True)
    parser.add_argument("--method", choices=["none", "sn", "gn", "pgn", "gp1"], required=True)
    parser.add_argument("--what", choices=["critic", "generator", "whole"], required=True)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    step = getattr(Trainer(args.arch, args.method), args.what + "_step")
    times = []
    for _ in range(1 + args.repeat):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    times = times[1:]
    unit = 1 if sys.platform == "darwin" else 1024
    print(json.dumps({"arch": args.arch, "method": args.method, "what": args.what,
                      "median_s": statistics.median(times), "times_s": times,
                      "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}))


if __name__ == "__main__":
    main()
