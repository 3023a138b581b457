"""What is the masked-token objective worth? kNN with and without its block, on labelled texts.

    python benchmarks/masked_tokens.py MODEL TRAIN TEST [--rows 2000] [--test-rows 500] [--steps 600]

MODEL: a Hugging Face or sentence-transformers folder or id of a BERT. Where its checkpoint has no masked-language-model
head, the script first fits a head on the training texts, without labels, with the network frozen: say so when you quote
a figure.
"""

from __future__ import annotations

import argparse
import tempfile
from itertools import islice
from typing import Any

import numpy as np
import torch
import transformers

from sporeprint import KL, Combination, Fungi, Recipe, SimCLR, knn, open_source
from sporeprint.backbones.libraries.huggingface import load_huggingface
from sporeprint.cli.print_tables import Column, print_table
from sporeprint.data.sampling import Sampled
from sporeprint.errors import BackboneError
from sporeprint.objectives import MaskedTokens
from sporeprint.objectives.views.token_masks import IGNORED, Masks

TABLE = {
    "embedding": (("embedding",), None),
    "kl alone": (("kl",), None),
    "simclr alone": (("simclr",), None),
    "mlm alone": (("mlm",), None),
    "embedding + kl + simclr": (("embedding", "kl", "simclr"), None),
    "embedding + kl + simclr + mlm": (("embedding", "kl", "simclr", "mlm"), None),
    "embedding + views, white": (("embedding", "simclr.views", "mlm.views"), 150),
    "embedding + kl + simclr, white": (("embedding", "kl", "simclr"), 150),
    "embedding + kl + simclr + mlm, white": (("embedding", "kl", "simclr", "mlm"), 150),
    "layers, white": (("layers",), 150),
    "layers + views, white": (("layers", "simclr.views", "mlm.views"), 150),
    "layers + kl + simclr, white": (("layers", "kl", "simclr"), 150),
    "layers + kl + simclr + mlm, white": (("layers", "kl", "simclr", "mlm"), 150),
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "train", "test"):
        arguments.add_argument(name)
    for name, default in (("--rows", 2000), ("--test-rows", 500), ("--steps", 600)):
        arguments.add_argument(name, type=int, default=default)
    given = arguments.parse_args()
    train, test = rows_of(given.train, given.rows), rows_of(given.test, given.test_rows)
    with tempfile.TemporaryDirectory() as folder:
        backbone = given.model
        try:
            load_huggingface(given.model, head=True)
        except BackboneError as error:
            print(f"{error}\nfitting a head on {len(train)} texts ...", flush=True)
            fit_head(given.model, [text for _, text, _ in train], given.steps, folder)
            backbone = folder
        objectives = [KL(), SimCLR(), MaskedTokens()]
        fungi = Fungi(Recipe(backbone=backbone, objectives=objectives, pooling="mean", dtype="float32"))
        blocks = fungi.fit_blocks([text for _, text, _ in train], ids=[name for name, _, _ in train])
        test_blocks = fungi.blocks([text for _, text, _ in test], ids=[name for name, _, _ in test])
    labels, test_labels = np.array([row[2] for row in train]), np.array([row[2] for row in test])
    lines = []
    layers = [name for name in blocks if name.startswith(("cls-", "tokens-"))]
    for name, (parts, white) in TABLE.items():
        names = [block for part in parts for block in (layers if part == "layers" else [part])]
        combiner = Combination(tuple(names), whiten=white).fit(blocks)
        results = [
            knn(combiner.transform(blocks), labels, combiner.transform(test_blocks), test_labels, k=k)
            for k in (20, "auto")
        ]
        lines.append([name, *(f"{result.value:.1%}" for result in results), str(results[1].k)])
    columns = [Column(name) for name in ("features", "k=20", "k auto", "its k")]
    print_table(columns, lines, f"kNN top-1, {len(train)} training rows, {len(test)} test rows")


def rows_of(path: str, count: int) -> list[tuple[str, str, Any]]:
    """Return (id, text, label) of a random part of a table."""
    source = Sampled(open_source(path, modality="text"), count)
    return [(row.id, str(row.sample), row.label) for row in source.rows()]


def fit_head(model: str, texts: list[str], steps: int, folder: str) -> None:
    """Save into `folder` the network with a head fitted to predict masked tokens of `texts`; the network is frozen."""
    torch.manual_seed(0)
    loaded = load_huggingface(model)
    whole = transformers.AutoModelForMaskedLM.from_config(loaded.module.config)
    whole.bert.load_state_dict(loaded.module.state_dict(), strict=False)  # without the pooler, which is not read
    inputs: Any = loaded.inputs
    rng, masks = np.random.default_rng(0), Masks(views=1)
    network = whole.bert
    network.requires_grad_(False)
    optimiser = torch.optim.AdamW([p for p in whole.cls.parameters() if p.requires_grad], lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
    whole.eval()  # no dropout: the network is frozen
    losses = []
    for step in range(steps):
        batch_texts = [texts[int(at)] for at in rng.integers(0, len(texts), 48)]
        batch = inputs.collate([masks(text, inputs, rng)[0] for text in batch_texts])
        labels = batch.pop("labels")
        with torch.no_grad():
            hidden = network(**batch).last_hidden_state[labels != IGNORED]  # [masked tokens, E]
        logits = whole.cls(hidden)
        loss = torch.nn.functional.cross_entropy(logits, labels[labels != IGNORED])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
        if step % 100 == 99:
            print(f"step {step + 1}: loss {np.mean(list(islice(reversed(losses), 100))):.2f}", flush=True)
    whole.save_pretrained(folder)
    inputs.tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    main()
