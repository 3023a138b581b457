"""How far are bfloat16 blocks from float32 ones, and how much faster are they? Same heads, negatives and views.

    python benchmarks/bfloat16.py BACKBONE SOURCE [--images 32] [--negatives 16]

BACKBONE: as `sporeprint extract --backbone`. SOURCE: a folder or table; a random part of it is used. Prints for each
block the least and the mean cosine over the images, and the seconds an image of both precisions, one after the other.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np

from sporeprint import DINO, KL, Fungi, Recipe, SimCLR, open_source
from sporeprint.data.sampling import Sampled


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbone")
    parser.add_argument("source")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--negatives", type=int, default=16)
    arguments = parser.parse_args()
    rows = list(Sampled(open_source(arguments.source), arguments.images).rows())
    images, ids = [row.sample for row in rows], [row.id for row in rows]

    objectives = [KL(), DINO(), SimCLR(negatives=arguments.negatives)]
    full = Fungi(Recipe(backbone=arguments.backbone, objectives=objectives, dtype="float32"))
    full.draw_negatives(zip(ids, images, strict=True))
    half = Fungi(replace(full.recipe, dtype="bfloat16", backbone=None), backbone=full.network)
    half.negatives.update(full.negatives)  # the heads and the projection follow from the seed
    blocks = {fungi: fungi.blocks(images, ids) for fungi in (full, half)}

    print(f"{'block':16}{'least cosine':>14}{'mean cosine':>14}   ({len(rows)} images, {arguments.backbone})")
    everything = []
    for name, values in blocks[full].items():
        cosines = (values.astype(np.float64) * blocks[half][name]).sum(axis=1)
        cosines /= np.linalg.norm(values, axis=1) * np.linalg.norm(blocks[half][name], axis=1)
        everything.append(cosines)
        print(f"{name:16}{cosines.min():14.5f}{cosines.mean():14.5f}")
    print(f"{'all':16}{np.min(everything):14.5f}{np.mean(everything):14.5f}")
    seconds = [
        sum(spent for name, spent in fungi.seconds.items() if name != "negatives") / len(rows) for fungi in (full, half)
    ]
    print(f"seconds an image: float32 {seconds[0]:.3f}, bfloat16 {seconds[1]:.3f}, ratio {seconds[0] / seconds[1]:.2f}")


if __name__ == "__main__":
    main()
