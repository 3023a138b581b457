"""Convert a ground truth of the revisited Oxford and Paris benchmark from the official pickle to JSON.

    python benchmarks/convert_ground_truth.py gnd_roxford5k.pkl gnd_roxford5k.json

WARNING: a pickle can run any code when it is opened, and this script opens it. Run it only on a file that you trust:
the official gnd_roxford5k.pkl or gnd_rparis6k.pkl, from https://github.com/filipradenovic/revisitop. What it writes
is checked, and is what `sporeprint retrieve --ground-truth` and `sporeprint.revisited` read.
"""

from __future__ import annotations

import argparse
import json
import pickle
from collections.abc import Sequence
from pathlib import Path

from sporeprint.errors import SampleError
from sporeprint.evaluate.ground_truth import load_ground_truth


def convert(source: Path, target: Path) -> None:
    """Open the pickle `source`, which runs what is in it, and write its JSON form. Raises SampleError."""
    with open(source, "rb") as file:
        contents = pickle.load(file, encoding="latin1")  # the encoding is for files of Python 2
    target.write_text(json.dumps(load_ground_truth(contents)), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="a pickle that you trust, since it can run code")
    parser.add_argument("target", type=Path, help="the JSON file to write")
    options = parser.parse_args(arguments)
    try:
        convert(options.source, options.target)
    except (OSError, SampleError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
