"""Makes the reference files of the Vision Transformers: small networks with random weights, images, and the output of every stage of
transformers' Dinov2Model and CLIPVisionModelWithProjection in float64. Weights and images are float16 numbers.

    python vit.py [FOLDER]              vit_dinov2.safetensors, vit_dinov2_grid.safetensors, vit_clip.safetensors
    python vit.py --zeros FOLDER        dinov2.safetensors and clip.safetensors, networks of zeros: seeds of fuzzing
    python vit.py --full small FOLDER   dinov2-small/model.safetensors (and config.json), reference.safetensors; base, large, clip alike

DINOv2's positions are interpolated as facebookresearch/dinov2 does, by the factor (16 + 0.1)/37; transformers (seen in 5.24) asks for a
size instead, which is the factor 16/37. Needs: pip install torch numpy safetensors transformers
"""

import argparse
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection, Dinov2Config, Dinov2Model

FULL = {"small": (384, 12), "base": (768, 12), "large": (1024, 24)}


def original_positions(self, embeddings, height, width):
    """Positions for images of another size, as the original code has them."""
    known = int((self.position_embeddings.shape[1] - 1) ** 0.5)
    patches = height // self.patch_size
    if known == patches:
        return self.position_embeddings
    kind, dim = self.position_embeddings.dtype, self.position_embeddings.shape[-1]
    table = self.position_embeddings[:, 1:].float().reshape(1, known, known, dim).permute(0, 3, 1, 2)
    factor = (patches + 0.1) / known
    table = nn.functional.interpolate(table, scale_factor=(factor, factor), mode="bicubic")
    return torch.cat([self.position_embeddings[:, :1], table.permute(0, 2, 3, 1).reshape(1, -1, dim).to(kind)], dim=1)


def randomise(model, generator):
    """Weights of the size that keeps numbers in bounds, biases and scales away from their trivial values."""
    for name, value in model.named_parameters():
        drawn = torch.randn(value.shape, generator=generator)
        if name.endswith(("norm1.weight", "norm2.weight", "norm.weight", "lambda1")):
            drawn = 1 + 0.2 * drawn
        elif value.dim() >= 2 and "embedding" not in name.replace("patch_embedding", ""):
            drawn = drawn / value[0].numel() ** 0.5
        elif value.dim() == 1:
            drawn = 0.2 * drawn
        value.data = drawn.half().to(value.dtype)


def dinov2(width, depth, grid, generator, ratio=4):
    config = Dinov2Config(hidden_size=width, num_hidden_layers=depth, num_attention_heads=width // 64, image_size=14 * grid,
                          patch_size=14, mlp_ratio=ratio, attn_implementation="eager")
    model = Dinov2Model(config).eval()
    model.embeddings.__class__.interpolate_pos_encoding = original_positions
    randomise(model, generator)
    return model, 224


def clip(width, depth, side, dim, generator):
    config = CLIPVisionConfig(hidden_size=width, intermediate_size=4 * width, num_hidden_layers=depth, num_attention_heads=width // 64,
                              image_size=side, patch_size=14, projection_dim=dim, attn_implementation="eager")
    model = CLIPVisionModelWithProjection(config).eval()
    randomise(model, generator)
    return model, side


def stages(model, images):
    """Of images [N, 3, side, side] in float64, channels last where there are any."""
    seen = {}

    def keep(name, only_class=False):
        def hook(_, __, out):
            out = out[0] if isinstance(out, tuple) else out
            seen[name] = out[:, :1] if only_class else out
        return hook

    if isinstance(model, Dinov2Model):
        blocks = model.encoder.layer
        model.embeddings.register_forward_hook(keep("embeddings"))
    else:
        vision = model.vision_model
        blocks = vision.encoder.layers
        vision.embeddings.register_forward_hook(keep("embeddings"))
        vision.pre_layrnorm.register_forward_hook(keep("before"))
    for k, block in enumerate(blocks):
        block.register_forward_hook(keep(f"block.{k}", k + 1 == len(blocks)))
    with torch.no_grad():
        out = model(pixel_values=images)
    if isinstance(model, Dinov2Model):
        seen["features"] = out.last_hidden_state[:, 0]
    else:
        seen["projection"] = out.image_embeds
        seen["features"] = out.image_embeds / out.image_embeds.norm(dim=-1, keepdim=True)
    return seen


def state(model, folder=None):
    """Its weights by the names that files have."""
    with tempfile.TemporaryDirectory() as throwaway:
        model.save_pretrained(folder or throwaway)
        return load_file(Path(folder or throwaway) / "model.safetensors")


def small(folder):
    generator = torch.Generator().manual_seed(0)
    makers = {"dinov2": lambda: dinov2(64, 2, 37, generator), "dinov2_grid": lambda: dinov2(128, 2, 5, generator, 1),
              "clip": lambda: clip(64, 2, 336, 48, generator)}
    for name, make in makers.items():
        model, side = make()
        images = torch.randn(1, 3, side, side, generator=generator).half()
        # Smooth enough to be kept small: every 14th pixel is drawn, and a ramp inside the patches.
        ramp = torch.linspace(-1, 1, 14).half()
        images = (images[:, :, ::14, ::14].repeat_interleave(14, 2).repeat_interleave(14, 3) + ramp.repeat(side // 14)).half()
        tensors = {f"weights.{key}": value.half() for key, value in state(model).items()}
        tensors["images"] = images[:, :, ::14, :].contiguous()
        outputs = stages(model.double(), images.double())
        if name == "dinov2":
            tokens = torch.empty(1, 257, 64)
            outputs["positions"] = model.float().embeddings.interpolate_pos_encoding(tokens, 224, 224).detach()
        # Of the middle stages one vector in sixteen.
        tensors |= {key: (value[:, ::16] if value.dim() == 3 else value).float().contiguous() for key, value in outputs.items()}
        save_file(tensors, folder / f"vit_{name}.safetensors")
        print(name, len(tensors), "tensors")


def zeros(folder):
    generator = torch.Generator()
    for name, (model, _) in {"dinov2": dinov2(64, 1, 2, generator, 1), "clip": clip(64, 1, 28, 8, generator)}.items():
        tensors = {key: torch.zeros_like(value.half()) for key, value in state(model).items()}
        save_file(tensors, folder / f"{name}.safetensors")


def full(which, folder):
    generator = torch.Generator().manual_seed(0)
    model, side = clip(1024, 24, 336, 768, generator) if which == "clip" else dinov2(*FULL[which], 37, generator)
    folder = folder / (f"dinov2-{which}" if which in FULL else which)
    folder.mkdir(parents=True, exist_ok=True)
    state(model, folder)
    images = torch.randint(0, 256, (2, side, side, 3), generator=generator, dtype=torch.uint8)
    mean, deviation = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]) if which in FULL else (
        [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])
    levels = (images.double() / 255 - torch.tensor(mean).double()) / torch.tensor(deviation).double()
    outputs = stages(model.double(), levels.permute(0, 3, 1, 2))
    tensors = {key: (value[:, ::16] if value.dim() == 3 else value).float().contiguous() for key, value in outputs.items()}
    save_file(tensors | {"bytes": images}, folder / "reference.safetensors")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path(__file__).resolve().parent)
    parser.add_argument("--full", choices=[*FULL, "clip"])
    parser.add_argument("--zeros", action="store_true")
    args = parser.parse_args()
    if args.zeros:
        zeros(args.folder)
    elif args.full:
        full(args.full, args.folder)
    else:
        small(args.folder)


if __name__ == "__main__":
    main()
