"""How fast are we? sporeprint against fungivision 0.0.2 and the bare forward passes, measured in turns.

    pip install sporeprint "fungivision==0.0.2" torchvision tqdm
    python benchmarks/speed.py [IMAGES] --models MODEL small [--batches 1 8 32] [--rounds 5]
    python benchmarks/speed.py --models base --batches 64 --device cuda --jpeg --images 512

IMAGES: a folder of class folders, or a table; synthetic ones of 500 x 375 without it. A model is a Hugging Face id or
folder of a ViT, or a shape with random weights at 224 / 16: tiny, small, base, large. Nothing is downloaded for those.

Both packages are given the same network, images, objectives and number of negatives. sporeprint also makes the
embedding, the layers and the views' means, which cost DINO or SimCLR alone one pass more. Floor A: the network alone on
as many views as the objectives have, already cut and on the device, at the fastest of float32, bfloat16 autocast and
bfloat16 weights, and of several numbers of views a pass; where there are many views, taken on part of them and scaled.
Floor B: one embedding per image, at the same batch, likewise. Ratios are medians over the rounds of ratios within one.

Memory is that of a process that makes a single call: the peak (VmHWM, loading included), and what was resident just
before. Negatives are given to both; fungivision's own `setup` adds 1.9 GB, all their views at once.
--jpeg: from files to features, fungivision with the DataLoader of its README, both with --workers workers.

Let nothing else run: threads that wait for each other make every figure several times worse, some more than others.
Each table says what other processes took.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from contestants import (
    MIXES,
    SHAPES,
    VIEWS,
    Bare,
    Fungivision,
    Images,
    from_files,
    network,
    passes,
    pictures,
    shown,
    sporeprint,
    write_jpegs,
)
from machine import Others, in_own_process, machine_class, measured, mebibytes, ratio, side_by_side, table, usable_cores
from PIL import Image

RIVAL, FLOOR_A, FLOOR_B = "fungivision", "floor A", "floor B"
CHUNKS = {"cpu": (4, 8, 16, 32), "cuda": (64, 128, 256, 512)}
MOST_VIEWS = {"cpu": 128, "cuda": 2048}  # of floor A; more are scaled from this many


def main() -> None:
    given = options()
    if given.threads:
        torch.set_num_threads(given.threads)
    if given.child:
        print(json.dumps(child(json.loads(given.child))))
        return
    print("\n".join(machine_class(given.device)), flush=True)
    images = pictures(max(*given.batches, given.images if given.jpeg else 1), given.source)
    for name in given.models:
        compare(name, images, given)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", metavar="IMAGES")
    parser.add_argument("--models", "--shape", nargs="+", default=["tiny", "small"], help=f"also: {', '.join(SHAPES)}")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--objectives", nargs="+", choices=MIXES, default=list(MIXES))
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"], help="of sporeprint; also auto")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=64, help="how many JPEG files")
    parser.add_argument("--negatives", type=int, default=64, help="images in SimCLR's bank, fungivision's default")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, help="of PyTorch; default its own")
    parser.add_argument("--workers", type=int, default=usable_cores(), help="that read JPEG files")
    parser.add_argument("--jpeg", action="store_true", help="also from JPEG files to features")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--no-rival", action="store_true", help="without fungivision, which is then not needed")
    parser.add_argument("--quick", action="store_true", help="batch 1 and 8, 3 rounds")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.quick:
        given.batches, given.rounds = [1, 8], 3
    return given


def compare(name: str, images: Images, given: argparse.Namespace) -> None:
    """Print all tables of one model."""
    module = network(name)
    fungis = {
        dtype: sporeprint(copy.deepcopy(module).to(given.device), dtype, max(given.batches), given.negatives)
        for dtype in given.dtypes
    }
    target = next(iter(next(iter(fungis.values()))["kl"].network.targets))
    rivals = {
        who: Fungivision(copy.deepcopy(module), target, given.device, half, given.negatives)
        for who, half in ({} if given.no_rival else halves(given.device)).items()
    }
    auto = sporeprint(copy.deepcopy(module).to(given.device), "auto", 1, 1)["kl"].describe()["dtype"]
    print(f"\n## {shown(name)}\n\ndtype='auto' comes to {auto} here; layer read: {target}")
    if rivals:
        same_passes(rivals[RIVAL], fungis[given.dtypes[0]], images[:1])
    bare = Bare(module, given.device)
    for batch in given.batches:
        calls = {who: caller(rival, batch, images) for who, rival in rivals.items()}
        calls |= {f"sporeprint {dtype}": caller(fungi, batch, images) for dtype, fungi in fungis.items()}
        timed_table(calls, bare, batch, given)
    if given.jpeg:
        files_table(rivals, fungis, images[: given.images], given)
    if not given.no_memory:
        memory_table(name, target, images, given)


def halves(device: str) -> dict[str, bool]:
    """Return fungivision's `use_fp16` by name: on a GPU as its README advises, and without."""
    return {RIVAL: True, f"{RIVAL} float32": False} if device == "cuda" else {RIVAL: False}


def caller(contestant: Any, batch: int, images: Images) -> Callable[[str], Any]:
    """Return a call from a mix to its features of one batch. contestant: Fungivision, or {mix: Fungi}."""
    part = images[:batch]
    if isinstance(contestant, Fungivision):
        return lambda mix: contestant.call(mix)(part)
    return lambda mix: contestant[mix].blocks(part)


def same_passes(rival: Fungivision, fungi: Mapping[str, Any], images: Images) -> None:
    for mix, names in MIXES.items():
        theirs = passes(rival.wrapper.model, partial(rival.call(mix), images))
        ours = passes(fungi[mix].network.module, partial(fungi[mix].blocks, images))
        expected = theirs + ("kl" not in names)  # the embedding's own pass, which KL shares
        verdict = "as expected" if ours == expected else f"NOT the {expected} expected"
        print(f"passes an image, {mix}: fungivision {theirs}, sporeprint {ours}, {verdict}")


def timed_table(calls: Mapping[str, Callable[[str], Any]], bare: Bare, batch: int, given: argparse.Namespace) -> None:
    """Print one row for each objective and contestant, for one batch size."""
    rows, notes, others = [], [], Others()
    for mix in given.objectives:
        views = batch * sum(VIEWS[name] for name in MIXES[mix])
        few = min(views, MOST_VIEWS[given.device])
        chunks = sorted({min(chunk, views) for chunk in CHUNKS[given.device]})
        best, plain, single = bare.fastest(chunks), bare.fastest(chunks, ["float32"]), bare.fastest([batch])
        floors = {FLOOR_A: (few, *best), f"{FLOOR_A} in float32": (few, *plain), FLOOR_B: (batch, *single)}
        named = {who: partial(call, mix) for who, call in calls.items()}
        named |= {who: bare_call(bare, *floor) for who, floor in floors.items()}
        seconds = side_by_side(named, given.rounds, given.device)
        scale = dict.fromkeys((FLOOR_A, f"{FLOOR_A} in float32"), views / few)
        times = {who: [second * scale.get(who, 1) / batch for second in each] for who, each in seconds.items()}
        rows += [[mix, *row] for row in timing_rows(times)]
        notes.append(f"{mix} {best[0]}, {best[1]} views a pass ({plain[1]} in float32)")
    precisions = f"{FLOOR_A}: {'; '.join(notes)}. {FLOOR_B}: {single[0]}."
    print(f"\n### Batch {batch}\n\n{given.rounds} rounds; {others}. {precisions}\n")
    header = ["objectives", "who", "ms an image", "least to most", "x fungivision's speed", "x floor A", "embeddings"]
    print(table(header, rows), flush=True)


def bare_call(bare: Bare, views: int, precision: str, chunk: int) -> Callable[[], None]:
    batch = bare.views(views, precision)
    return lambda: bare.run(batch, precision, chunk)


def timing_rows(times: Mapping[str, Sequence[float]]) -> list[list[str]]:
    """Return cells from the contestant's name on, "" where unknown. times: seconds per image in each round."""

    def cell(times: Sequence[float], reference: Sequence[float] | None, digits: int) -> str:
        return "" if reference is None else f"{ratio(times, reference):.{digits}f}"

    return [
        [
            who,
            f"{1000 * statistics.median(each):.1f}",
            f"{1000 * min(each):.1f} to {1000 * max(each):.1f}",
            "" if RIVAL not in times else cell(times[RIVAL], each, 2),
            cell(each, times.get(FLOOR_A), 2),
            cell(each, times.get(FLOOR_B), 1),
        ]
        for who, each in times.items()
    ]


def files_table(
    rivals: Mapping[str, Fungivision], fungis: Mapping[str, Any], images: Images, given: argparse.Namespace
) -> None:
    """Print the speed from JPEG files to features, for the last objectives given at the largest batch."""
    mix, batch, others = given.objectives[-1], max(given.batches), Others()
    with tempfile.TemporaryDirectory() as folder:
        paths = write_jpegs(images, Path(folder))
        calls: dict[str, Callable[[], Any]] = {
            who: partial(from_files, rival.call(mix), paths, batch, given.workers) for who, rival in rivals.items()
        }
        for dtype, by_mix in fungis.items():
            by_mix[mix].set_params(workers=given.workers)
            calls[f"sporeprint {dtype}"] = partial(by_mix[mix].blocks, paths)
        seconds = side_by_side(calls, given.rounds, given.device)
    rows = [
        [
            mix,
            who,
            f"{len(paths) / statistics.median(each):.2f}",
            f"{ratio(seconds[RIVAL], each):.2f}" if rivals else "",
        ]
        for who, each in seconds.items()
    ]
    print(f"\n### From {len(paths)} JPEG files, batch {batch}, {given.workers} workers; {others}\n")
    print(table(["objectives", "who", "images a second", "x fungivision's speed"], rows), flush=True)


def memory_table(name: str, target: str, images: Images, given: argparse.Namespace) -> None:
    """Print the peak resident memory of each contestant in its own process, for the last objectives given."""
    mix, rows = given.objectives[-1], []
    whos = [] if given.no_rival else list(halves(given.device))
    whos += [f"sporeprint {dtype}" for dtype in given.dtypes]
    with tempfile.TemporaryDirectory() as folder:
        for number, image in enumerate(images[: max(given.batches)]):
            image.save(Path(folder) / f"{number:06}.png")
        shared = {"model": name, "target": target, "images": folder, "mix": mix, "device": given.device}
        shared |= {"negatives": given.negatives, "threads": torch.get_num_threads()}
        for batch in given.batches:
            results = {
                who: in_own_process(__file__, {**shared, "who": who, "batch": batch}) for who in [FLOOR_B, *whos]
            }
            rival = results.get(RIVAL)
            for who, result in results.items():
                if result:
                    share = f"{result['peak'] / rival['peak']:.2f}" if rival else ""
                    cells = [mebibytes(result[key]) for key in ("before", "peak", "device")]
                    rows.append([str(batch), who, *cells, share])
    print(f"\n### Memory of the process, MiB: {mix}\n")
    print(
        table(["batch", "who", "before the call", "peak", "peak on the GPU", "peak / fungivision's"], rows), flush=True
    )


def child(job: Mapping[str, Any]) -> dict[str, float]:
    """Measure one call of one contestant and batch, in a process that has loaded nothing else."""
    torch.set_num_threads(job["threads"])
    paths = sorted(Path(job["images"]).iterdir())[: job["batch"]]
    images = [Image.open(path).convert("RGB") for path in paths]
    module, who, device = network(job["model"]), job["who"], job["device"]
    if who == FLOOR_B:
        module.to(device)
        views = torch.randn(len(images), 3, 224, 224, device=device)
        with torch.inference_mode():
            return measured(lambda: module(pixel_values=views), device)
    if who.startswith(RIVAL):
        rival = Fungivision(module, job["target"], device, halves(device)[who], job["negatives"])
        return measured(lambda: rival.call(job["mix"])(images), device)
    fungi = sporeprint(module.to(device), who.split()[1], job["batch"], job["negatives"])[job["mix"]]
    return measured(lambda: fungi.blocks(images), device)


if __name__ == "__main__":
    main()
