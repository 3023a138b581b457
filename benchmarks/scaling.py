"""How do time and memory grow with the number of images, with that of views, and with the width of the network?

    pip install sporeprint
    python benchmarks/scaling.py [--images 100 1000 10000] [--grids 2 3 4 5 6 7] [--shapes tiny small base large]

- images: JPEG files of 64 x 64, all objectives, the shipped backbone (28 x 28, six blocks).
- views: SimCLR alone on grids of patches, a ViT-Tiny/16 of random weights at 224, four images.
- width: all objectives, ViTs of random weights at 224 / 16, two images.

Each row is measured in a process of its own: first one image, uncounted, then the median of a few calls (a single call
where it takes half a minute). Memory is what was resident before the first call, and the peak after the last (VmHWM).
The exponent is the slope of log seconds over log n, 1 where growth is linear; n is the number of images, of passes per
image, or of weights. Negatives are random numbers: drawing them is a fixed cost.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from contestants import LATENT, SHAPES, network, pictures, shown, write_jpegs
from machine import Others, growth, in_own_process, machine_class, measured, mebibytes, table

SHIPPED, LONG = "shipped", 30.0  # seconds after which a call is not repeated
NEGATIVES = 64


def main() -> None:
    given = options()
    if given.threads:
        torch.set_num_threads(given.threads)
    if given.child:
        print(json.dumps(child(json.loads(given.child))))
        return
    print("\n".join(machine_class(given.device)), flush=True)
    shared = {"dtype": given.dtype, "device": given.device, "threads": torch.get_num_threads(), "rounds": given.rounds}
    with tempfile.TemporaryDirectory() as folder:
        write_jpegs(pictures(max([4, *given.images]), size=(64, 64)), Path(folder))
        images = {"folder": folder, **shared}
        study(
            "images",
            "the shipped backbone, all objectives",
            [(f"{count:,}", count, count, {**images, "model": SHIPPED, "count": count}) for count in given.images],
        )
        study(
            "views",
            "ViT-Tiny/16, random weights, SimCLR",
            [
                (f"{grid} x {grid}", grid**2 + 1, 4, {**images, "model": "tiny", "count": 4, "grid": grid})
                for grid in given.grids
            ],
        )
        study(
            "width",
            "all objectives",
            [
                (shown(name).split(",")[0], weights(name), 2, {**images, "model": name, "count": 2})
                for name in given.shapes
            ],
        )


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", nargs="*", type=int, default=[100, 1000, 10_000])
    parser.add_argument("--grids", nargs="*", type=int, default=[2, 3, 4, 5, 6, 7], help="patches a side")
    parser.add_argument("--shapes", nargs="*", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, help="of PyTorch; default its own")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def weights(name: str) -> int:
    return sum(weight.numel() for weight in network(name).parameters())


def study(what: str, how: str, jobs: Iterable[tuple[str, int, int, Mapping[str, Any]]]) -> None:
    """Measure and print one table. jobs: (label, n of the fit, images, job of the child)."""
    measured_rows, others = [], Others()
    for label, size, count, job in jobs:
        if result := in_own_process(__file__, job):
            measured_rows.append((label, size, count, result))
    if not measured_rows:
        return
    rows = [
        [
            label,
            f"{size:,}",
            f"{result['seconds']:.1f}",
            f"{1000 * result['seconds'] / count:.1f}",
            mebibytes(result["before"]),
            mebibytes(result["peak"]),
            mebibytes(result["device"]),
        ]
        for label, size, count, result in measured_rows
    ]
    print(f"\n## {what}: {how}, {measured_rows[0][3]['dtype']}; {others}\n")
    header = [what, "n", "seconds", "ms an image", "MiB before", "MiB at most", "MiB of the GPU"]
    print(table(header, rows))
    if len(measured_rows) > 1:
        print(f"\n{fitted([row[1] for row in measured_rows], [row[3] for row in measured_rows])}", flush=True)


def fitted(sizes: Sequence[int], results: Sequence[Mapping[str, float]]) -> str:
    """Describe the exponent of the time, and the growth of memory from the smallest size to the largest."""
    times, peaks = [result["seconds"] for result in results], [result["peak"] for result in results]
    exponent = growth(sizes, times)
    return (
        f"time grows as n ** {exponent:.2f}; n {sizes[-1] / sizes[0]:.1f} times as great takes "
        f"{times[-1] / times[0]:.1f} times as long, and {peaks[-1] / peaks[0]:.2f} times the memory"
    )


def child(job: Mapping[str, Any]) -> dict[str, Any]:
    """Measure `blocks` of the job's files: seconds, and the memory of this process."""
    torch.set_num_threads(job["threads"])
    paths = [str(path) for path in sorted(Path(job["folder"]).iterdir())[: job["count"]]]
    fungi = make(job)
    first = measured(lambda: fungi.blocks(paths[:1]), job["device"])
    calls = [measured(lambda: fungi.blocks(paths), job["device"])]
    while len(calls) < job["rounds"] and calls[0]["seconds"] < LONG:
        calls.append(measured(lambda: fungi.blocks(paths), job["device"]))
    return {
        "before": first["before"],
        "peak": calls[-1]["peak"],
        "device": max(call["device"] for call in calls),
        "seconds": median(call["seconds"] for call in calls),
        "dtype": fungi.describe()["dtype"],
    }


def make(job: Mapping[str, Any]) -> Any:
    from sporeprint import DINO, KL, Backbone, Fungi, Preprocess, Recipe, SimCLR
    from sporeprint.objectives.views.image import Patches

    simclr = SimCLR(negatives=NEGATIVES, augmentation=Patches(grid=job.get("grid", 7)))
    objectives = [simclr] if "grid" in job else [KL(), DINO(), simclr]
    if job["model"] == SHIPPED:
        fungi = Fungi(Recipe(backbone="tiny", objectives=objectives, dtype=job["dtype"]), device=job["device"])
    else:
        backbone = Backbone(network(job["model"]).to(job["device"]), preprocess=Preprocess(size=224), pooling="cls")
        fungi = Fungi(Recipe(objectives=objectives, dtype=job["dtype"]), backbone=backbone)
    fungi.negatives["simclr"] = torch.randn(NEGATIVES * simclr.views, LATENT)
    return fungi


if __name__ == "__main__":
    main()
