"""Print the resident memory of a process that computes blocks of texts of all lengths, as rows go by.

    python benchmarks/text_memory.py --rows 20000
    python benchmarks/text_memory.py --rows 1000 --backbone FOLDER --preset balanced

Without --backbone: a small BERT with random weights, for many rows in little time. --keep-free: as it was before freed
memory was given back after each batch.
"""

from __future__ import annotations

import argparse
import ctypes
import random
import time
from pathlib import Path

import tokenizers as tk
import torch
import transformers as tf

from sporeprint import Backbone, Fungi, Recipe
from sporeprint.features import engine
from sporeprint.features.batches import decoded_batches

WORDS = [
    "the",
    "spore",
    "print",
    "of",
    "a",
    "fungus",
    "is",
    "mark",
    "it",
    "leaves",
    "wood",
    "tree",
    "leaf",
    "hat",
    "gill",
]


class Heap(ctypes.Structure):
    """What glibc's mallinfo2 returns."""

    _fields_ = [
        *((name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks")),
        *((name, ctypes.c_size_t) for name in ("uordblks", "fordblks", "keepcost")),
    ]


def small_bert() -> Backbone:
    """Make a BERT of 2 blocks of width 64 over a vocabulary of `WORDS`."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys([*special, *WORDS]))}
    inner = tk.Tokenizer(tk.models.WordLevel(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = tk.pre_tokenizers.Whitespace()
    inner.post_processor = tk.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {f"{token[1:-1].lower()}_token": token for token in special}
    tokenizer = tf.PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=256, **names)
    torch.manual_seed(0)
    config = tf.BertConfig(
        vocab_size=len(vocabulary), hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=256
    )
    return Backbone(tf.BertModel(config).eval(), preprocess=tokenizer)


def text(number: int, rng: random.Random, longest: int = 220) -> str:
    """Return a text of 3 to `longest` words, all lengths about equally frequent on a logarithmic scale."""
    words = int(3 * (longest / 3) ** rng.random())
    return f"{number} {' '.join(rng.choice(WORDS) for _ in range(words))}"


def memory() -> str:
    """Return resident memory, and the heap's used and free parts, in MiB."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    library = ctypes.CDLL(None)
    library.mallinfo2.restype = Heap
    heap = library.mallinfo2()
    resident = int(status["VmRSS"].split()[0]) >> 10
    return f"resident {resident:5} MiB, heap used {heap.uordblks >> 20:5}, free {heap.fordblks >> 20:5}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--preset", default="balanced")
    parser.add_argument("--backbone")
    parser.add_argument("--keep-free", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.keep_free:
        engine.give_back = lambda: None
    if options.backbone:
        fungi = Fungi(Recipe.preset(options.preset, backbone=options.backbone, dtype="float32"))
    else:
        recipe = Recipe.preset(options.preset, modality="text", dtype="float32", dim=64)
        fungi = Fungi(recipe, backbone=small_bert())
    rng = random.Random(0)
    rows = [(str(number), text(number, rng)) for number in range(options.rows)]
    fungi.draw_negatives(rows[:500])
    print(f"{0:6} rows, {memory()}", flush=True)
    started, seen, shown = time.perf_counter(), 0, 0
    for batch in decoded_batches(fungi.network.preprocess, rows, 32, 1):
        fungi.compute(*batch)
        seen += len(batch.rows)
        if seen - shown >= options.rows // 20 or seen == options.rows:
            shown = seen
            print(f"{seen:6} rows, {memory()}, {seen / (time.perf_counter() - started):.1f} rows/s", flush=True)


if __name__ == "__main__":
    main()
