"""How far are bfloat16 blocks from float32 ones, and how do neighbours change? Same heads, negatives and views.

    python benchmarks/bfloat16.py BACKBONE SOURCE [--images 32] [--negatives 16]
    python benchmarks/bfloat16.py BACKBONE TRAIN --images 600 --test TEST --test-images 300 --views native

BACKBONE: as `sporeprint extract --backbone`. SOURCE: a folder or table of images; a random part of it is used. Prints
the least and the mean cosine of each block over the images, and the seconds per image of both precisions, run one after
the other. float32 is the network's own forward. With a test source it also prints the top-1 of nearest neighbours in
both, with k chosen by leave-one-out on the training rows of each.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np

from sporeprint import DINO, KL, Fungi, Recipe, SimCLR, knn, open_source
from sporeprint.data.rows import Row
from sporeprint.data.sampling import Sampled
from sporeprint.features.gathered import Blocks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbone")
    parser.add_argument("source")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--negatives", type=int, default=16)
    parser.add_argument("--views", default="paper", help="paper or native")
    parser.add_argument("--test", help="a source with the same labels")
    parser.add_argument("--test-images", type=int, default=300)
    given = parser.parse_args()
    train = list(Sampled(open_source(given.source), given.images).rows())
    test = list(Sampled(open_source(given.test), given.test_images).rows()) if given.test else []

    objectives = [KL(), DINO(), SimCLR(negatives=given.negatives)]
    recipe = Recipe(backbone=given.backbone, objectives=objectives, views=given.views, dtype="float32")
    full = Fungi(recipe)
    full.draw_negatives((row.id, row.sample) for row in train)
    half = Fungi(replace(recipe, dtype="bfloat16"))
    half.negatives.update(full.negatives)  # the heads and the projection follow from the seed
    full.network.quick = False
    of_full, of_half = blocks_of(full, train), blocks_of(half, train)

    print(f"{'block':16}{'least cosine':>14}{'mean cosine':>14}   ({len(train)} images, {given.views} views)")
    everything = {name: (values.astype(np.float64) * of_half[name]).sum(axis=1) for name, values in of_full.items()}
    for name, cosines in [*everything.items(), ("all", np.concatenate(list(everything.values())))]:
        print(f"{name:16}{cosines.min():14.5f}{cosines.mean():14.5f}")
    spent = [{name: time for name, time in fungi.seconds.items() if name != "negatives"} for fungi in (full, half)]
    seconds = [sum(times.values()) / len(train) for times in spent]
    print(f"seconds an image: float32 {seconds[0]:.3f}, bfloat16 {seconds[1]:.3f}, ratio {seconds[0] / seconds[1]:.2f}")
    if test:
        compare([(of_full, blocks_of(full, test)), (of_half, blocks_of(half, test))], train, test)


def blocks_of(fungi: Fungi, rows: list[Row]) -> Blocks:
    return fungi.blocks([row.sample for row in rows], ids=[row.id for row in rows])


def compare(precisions: list[tuple[Blocks, Blocks]], train: list[Row], test: list[Row]) -> None:
    """Print the top-1 of every block of train and test rows in both precisions."""
    labels, expected = [row.label for row in train], [row.label for row in test]
    print(f"\n{'block':16}{'float32':>10}{'bfloat16':>10}   (top-1 in %, {len(train)} / {len(test)} images)")
    changes = []
    for name in precisions[0][0]:
        values = [knn(a[name], labels, b[name], expected, k="auto").value for a, b in precisions]
        changes.append(values[1] - values[0])
        print(f"{name:16}{values[0]:10.1%}{values[1]:10.1%}")
    print(f"change: mean {np.mean(changes):+.2%}, least {min(changes):+.2%}, most {max(changes):+.2%}", end="; ")
    print(f"one standard error of an accuracy is about {0.5 / len(test) ** 0.5:.1%} at most")


if __name__ == "__main__":
    main()
