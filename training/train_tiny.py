"""Train the embedded backbone (src/sporeprint/backbones/libraries/tiny.safetensors) by self-supervision alone.

SimCLR on Fashion-MNIST's training images: two augmented views of an image, each with half of its patches dropped,
must find each other among the views of the batch. Labels are read by `--evaluate` only, which trains nothing.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from sporeprint.backbones.libraries.tiny import TinyConfig, TinyViT, load_tiny

DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # the package dataset-fashion-mnist
PACKAGED = Path(__file__).parents[1] / "src/sporeprint/backbones/libraries/tiny.safetensors"
BATCH = 256  # images; each gives two views
TEMPERATURE = 0.2
LEARNING_RATE = 1e-3
WARMUP = 200  # steps
KEPT_PATCHES = 0.5


def read_idx(path: Path) -> np.ndarray:
    """Read a gzipped idx file of unsigned bytes as uint8 [N, ...]."""
    raw = gzip.decompress(path.read_bytes())
    sizes = np.frombuffer(raw, ">i4", count=raw[3], offset=4)
    return np.frombuffer(bytearray(raw), np.uint8, offset=4 + 4 * raw[3]).reshape(sizes)


def uniform(low: float, high: float, count: int, generator: torch.Generator) -> Tensor:
    """Draw [count, 1, 1, 1] from [low, high)."""
    return low + (high - low) * torch.rand(count, 1, 1, 1, generator=generator)


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Draw one random view of each image, never mirrored: a mirrored character is another character.

    images: [N, 1, S, S] in [0, 1]. Returns the same shape and range.
    """
    count, side = len(images), images.shape[-1]

    def chance(probability: float) -> Tensor:
        return uniform(0, 1, count, generator) < probability

    outline = F.max_pool2d(images, 3, 1, 1) + F.max_pool2d(-images, 3, 1, 1)  # dilation minus erosion
    images = torch.where(chance(0.3), outline, images)

    # A crop (or, beyond 1, a margin), slightly rotated, stretched and slanted.
    angle, shear = uniform(-0.3, 0.3, count, generator), uniform(-0.25, 0.25, count, generator)
    scale, stretch = uniform(0.55, 1.15, count, generator), uniform(-0.2, 0.2, count, generator).exp()
    room = (1 - scale).abs() + 0.1
    across, down = (uniform(-1, 1, count, generator) * room for _ in "xy")
    wide, high = scale * stretch, scale / stretch
    rows = [
        [wide * angle.cos(), high * (shear * angle.cos() - angle.sin()), across],
        [wide * angle.sin(), high * (shear * angle.sin() + angle.cos()), down],
    ]
    theta = torch.cat([torch.cat(row, dim=3) for row in rows], dim=2).squeeze(1)  # [N, 2, 3]
    images = F.grid_sample(images, F.affine_grid(theta, list(images.shape), align_corners=False), align_corners=False)

    # Half of the views lose their fine detail.
    blurred = [
        F.interpolate(
            F.interpolate(part, size=(size, size), mode="area"), size=(side, side), mode="bicubic", align_corners=False
        )
        for part, size in zip(images.chunk(3), (8, 11, 14), strict=False)
    ]
    images = torch.where(chance(0.5), torch.cat(blurred), images).clamp(0, 1)

    contrast, brightness = uniform(0.6, 1.4, count, generator), uniform(-0.1, 0.1, count, generator)
    gamma = uniform(-0.7, 0.7, count, generator).exp()
    return (images.clamp(min=1e-4) ** gamma * contrast + brightness).clamp(0, 1)


def keep_patches(tokens: Tensor, fraction: float, generator: torch.Generator) -> Tensor:
    """Keep the CLS token and a random part of the patches. tokens: [N, 1 + P, E]. Returns [N, 1 + fraction * P, E]."""
    count, patches = len(tokens), tokens.shape[1] - 1
    if fraction == 1:
        return tokens
    chosen = torch.rand(count, patches, generator=generator).argsort(1)[:, : round(fraction * patches)] + 1
    chosen = torch.cat([torch.zeros(count, 1, dtype=torch.long), chosen], dim=1)
    return tokens.gather(1, chosen.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def contrast_views(latents: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Return the NT-Xent loss of SimCLR (Chen et al. 2020, eq. 1). latents: [2N, L]; the partner of view i is i + N."""
    latents = F.normalize(latents.float(), dim=1)
    similarity = (latents @ latents.T / temperature).fill_diagonal_(-torch.inf)
    return F.cross_entropy(similarity, torch.arange(len(latents)).roll(len(latents) // 2))


def initialise(model: TinyViT) -> None:
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    nn.init.trunc_normal_(model.cls_token, std=0.02)
    nn.init.trunc_normal_(model.pos_embed, std=0.02)


def projection_head(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, 512), nn.BatchNorm1d(512), nn.GELU(), nn.Linear(512, 128))


def save(model: TinyViT, config: TinyConfig, out: Path) -> None:
    state = {name: value.detach().half().contiguous() for name, value in model.state_dict().items()}
    save_file(state, out, metadata={"config": json.dumps(asdict(config))})


def train(images: Tensor, epochs: int, seed: int, out: Path) -> None:
    """Train on images, uint8 [N, S, S]; write the weights to `out` after every epoch. The last drops no patches."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    config = TinyConfig(image_size=images.shape[-1])
    model = TinyViT(config)
    initialise(model)
    heads = nn.ModuleList([projection_head(config.width), projection_head(config.width)])  # for CLS, for the patches
    optimiser = torch.optim.AdamW(
        [*model.parameters(), *heads.parameters()], lr=LEARNING_RATE, weight_decay=0.05, fused=True
    )
    steps = len(images) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, LEARNING_RATE, epochs * steps, pct_start=min(0.3, WARMUP / (epochs * steps)), cycle_momentum=False
    )
    start = time.monotonic()
    for epoch in range(epochs):
        kept = 1.0 if epoch == epochs - 1 else KEPT_PATCHES
        total = 0.0
        for step, rows in enumerate(torch.randperm(len(images), generator=generator)[: steps * BATCH].split(BATCH)):
            batch = images[rows].unsqueeze(1).float() / 255
            views = torch.cat([augment(batch, generator), augment(batch, generator)])
            views = ((views - config.mean) / config.std).expand(-1, 3, -1, -1)  # [2N, 3, S, S]
            # The fused CPU attention has a slow bf16 backward: the plain one trains about twice as fast.
            with torch.autocast("cpu", dtype=torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
                tokens = model.encode(keep_patches(model.embed(views), kept, generator))
                latents = heads[0](tokens[:, 0]), heads[1](tokens[:, 1:].mean(1))
            loss = torch.stack([contrast_views(latent) for latent in latents]).mean()
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            total += loss.item()
            if step % 50 == 49:
                print(f"  step {step + 1}/{steps}  loss {total / (step + 1):.4f}", flush=True)
        save(model, config, out)
        print(f"epoch {epoch + 1}/{epochs}  loss {total / steps:.4f}  {time.monotonic() - start:.0f} s", flush=True)


@torch.inference_mode()
def cls_embeddings(images: np.ndarray) -> np.ndarray:
    """Return the packaged model's CLS tokens, float32 [N, E], of images, uint8 [N, S, S]."""
    model, config = load_tiny()
    pixels = torch.from_numpy(images).unsqueeze(1).float() / 255
    pixels = ((pixels - config.mean) / config.std).expand(-1, 3, -1, -1)
    return torch.cat([model(part)[:, 0] for part in pixels.split(500)]).numpy()


def evaluate(data: Path) -> None:
    """Print the model card's accuracies of the packaged weights: 20 nearest neighbours, cosine, majority."""
    from PIL import Image
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    from sklearn.neighbors import KNeighborsClassifier

    def report(name: str, train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, labels: np.ndarray) -> None:
        knn = KNeighborsClassifier(20, metric="cosine").fit(train, train_labels)
        print(f"{name}: {knn.score(test, labels):.4f} ({len(train)} train, {len(test)} test rows)", flush=True)

    side = load_tiny()[1].image_size
    digits, digit_labels = load_digits(return_X_y=True)
    grey = np.uint8(np.round(digits.reshape(-1, 8, 8) * 255 / 16))
    upscaled = np.stack([np.asarray(Image.fromarray(digit).resize((side, side), Image.BICUBIC)) for digit in grey])
    chosen, rest = train_test_split(range(len(digits)), train_size=1200, stratify=digit_labels, random_state=0)
    for name, features in {"CLS": cls_embeddings(upscaled), "raw pixels": digits}.items():
        report(f"digits, {name}", features[chosen], digit_labels[chosen], features[rest], digit_labels[rest])

    images = {part: read_idx(data / f"{part}-images-idx3-ubyte.gz") for part in ("train", "t10k")}
    labels = {part: read_idx(data / f"{part}-labels-idx1-ubyte.gz") for part in ("train", "t10k")}
    for name, embed in {"CLS": cls_embeddings, "raw pixels": lambda x: x.reshape(len(x), -1) / np.float32(255)}.items():
        features = {part: embed(values) for part, values in images.items()}
        report(f"Fashion-MNIST, {name}", features["train"], labels["train"], features["t10k"], labels["t10k"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEBIAN, help="folder of the four idx .gz files")
    parser.add_argument("--out", type=Path, default=PACKAGED, help="safetensors file to write")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, help="train on the first LIMIT images only")
    parser.add_argument("--evaluate", action="store_true", help="train nothing; report on the packaged weights")
    options = parser.parse_args()
    if options.evaluate:
        evaluate(options.data)
        return
    images = read_idx(options.data / "train-images-idx3-ubyte.gz")[: options.limit]
    train(torch.from_numpy(images), options.epochs, options.seed, options.out)


if __name__ == "__main__":
    main()
