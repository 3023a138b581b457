"""Samples of different lengths: which rows share a pass, that their order comes back, and what is cut is named."""

import math
import warnings
from collections import deque
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from sporeprint import KL, Fungi, Recipe, SimCLR
from sporeprint.backbones.backbone import Backbone
from sporeprint.backbones.inputs.inputs import Inputs
from sporeprint.errors import SampleError
from sporeprint.features.contracts import check_backbone
from sporeprint.objectives.view_sets import generator, view_sets
from sporeprint.objectives.views.text import Deletions
from sporeprint.objectives.views.whole import Whole


class Numbers(Inputs):
    """Texts of numbers, "3 14 15", to those numbers; at most `most` of them are read."""

    modality = "text"
    sample = "text"

    def __init__(self, budget=12, most=99, same=lambda ready: 0):
        self.budget, self.most, self.same = budget, most, same

    def load(self, sample, limits):
        if sample == "broken":
            raise SampleError("it is broken")
        return sample

    def digest(self, loaded):
        return f"digest of {loaded}"

    def truncates(self, ready):
        return len(ready.split()) > self.most

    def bulk(self, ready):
        return len(ready)

    def length(self, ready):
        return len(ready.split())

    def __call__(self, ready):
        return [int(word) for word in ready.split()][: self.most]

    def collate(self, views):
        longest = max(map(len, views))
        mask = torch.tensor([[at < len(view) for at in range(longest)] for view in views])
        return {"input_ids": torch.tensor([view + [0] * (longest - len(view)) for view in views]), "mask": mask}

    def probes(self):
        return [[1, 2, 3, 4], [5, 6], [7]]

    def describe(self):
        return {"most": self.most}

    def limits(self):
        return {"max_tokens": self.most, "vocabulary": 30}


class Net(nn.Module):
    """The mean of one layer over the numbers that are there. `seen` keeps the lengths of each pass."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.table, self.mix = nn.Embedding(30, 8), nn.Linear(8, 8)
        self.seen = deque()  # a list would be a copy in each pass

    def forward(self, input_ids, mask):
        self.seen.append(mask.sum(dim=1).tolist())
        tokens = self.mix(self.table(input_ids)).tanh().masked_fill(~mask.unsqueeze(-1), 0)
        return tokens.sum(dim=1) / mask.sum(dim=1, keepdim=True)


TEXTS = ["1 2 3 4 5 6", "7", "8 9 10", "11 12 13 14 15 16 17 18 19", "20 21", "22", "23 24 25 26", "27 28 29"]
IDS = [f"row-{at}" for at in range(len(TEXTS))]
KL_ = KL(latent=9)
SIMCLR_ = SimCLR(latent=6, augmentation=Deletions(3, 0.3), negatives=50, negative_views=2)


def make(objectives=(KL_,), dtype=torch.float64, fungi=None, **options):
    backbone = Backbone(Net().to(dtype), target="mix", preprocess=Numbers(**options))
    backbone.module.seen.clear()
    return Fungi(Recipe(objectives=objectives, seed=3, dim=7), backbone=backbone, **(fungi or {}))


def passes(lengths, views=1, **options):
    """Lengths of the rows of each pass, of rows that are sorted already."""
    engine = make(**options).engine
    rows = [(str(at), " ".join(["1"] * length)) for at, length in enumerate(lengths)]
    (view_set,) = view_sets([replace(KL_, augmentation=Whole() if views == 1 else Deletions(views))])[-1:]
    chunks = list(engine.passing().chunks(view_set, rows))
    assert [row for chunk in chunks for row in chunk] == rows
    return [[len(text.split()) for _, text in chunk] for chunk in chunks]


def test_the_fake_keeps_the_contract_of_a_backbone():
    check_backbone(make().network)


class ReadsPadding(Net):
    def forward(self, input_ids, mask):
        return self.mix(self.table(input_ids)).tanh().mean(dim=1)


class PaddingFeels(Net):
    """The embedding is right; the padding's gradient is not zero."""

    def forward(self, input_ids, mask):
        tokens, real = self.mix(self.table(input_ids)).tanh(), mask.unsqueeze(-1)
        padding = (tokens * ~real).sum(dim=1)
        return (tokens * real).sum(dim=1) / mask.sum(dim=1, keepdim=True) + padding - padding.detach()


@pytest.mark.parametrize(
    ("network", "complaint"), [(ReadsPadding, "row 1 depends on its batch"), (PaddingFeels, "row 1 reads its padding")]
)
def test_a_network_that_reads_padding_breaks_the_contract(network, complaint):
    with pytest.raises(AssertionError, match=complaint):
        check_backbone(Backbone(network(), target="mix", preprocess=Numbers()))


@pytest.mark.parametrize(
    ("lengths", "views", "expected"),
    [  # budget 12: rows x views x the longest
        ([1, 1, 2, 3, 3, 4, 6, 13], 1, [[1, 1, 2, 3], [3, 4], [6], [13]]),
        ([1, 1, 2, 3, 3, 4, 6, 13], 2, [[1, 1, 2], [3, 3], [4], [6], [13]]),
        ([1] * 13, 1, [[1] * 12, [1]]),
        ([6, 6, 6], 1, [[6, 6], [6]]),
        ([6, 7], 1, [[6], [7]]),
        ([1, 1], 12, [[1], [1]]),
        ([5], 3, [[5]]),
        ([], 1, []),
    ],
)
def test_rows_share_a_pass_as_far_as_the_budget_goes(lengths, views, expected):
    assert passes(lengths, views) == expected


def test_rows_that_cannot_share_a_pass_do_not():
    assert passes([2, 2, 3, 3], same=lambda text: len(text)) == [[2, 2], [3, 3]]
    assert passes([2, 2, 2], same=lambda text: len(text), budget=4) == [[2, 2], [2]]


def test_the_network_sees_short_rows_first_and_no_pass_beyond_the_budget():
    fungi = make()
    fungi.blocks(TEXTS, ids=IDS)
    assert list(fungi.network.module.seen) == [[1, 1, 2, 3], [3, 4], [6], [9]]


def test_rows_of_equal_length_are_sorted_by_what_lets_them_share_a_pass():
    fungi = make(same=lambda text: text[0])
    fungi.blocks(["5 1", "7 2", "5 3", "7 4"])
    assert list(fungi.network.module.seen) == [[2, 2], [2, 2]]


def oracle(fungi, text):
    """Embedding of one text, one number at a time."""
    net = fungi.network.module
    with torch.no_grad():
        parts = [torch.tanh(net.mix.weight @ net.table.weight[int(word)] + net.mix.bias) for word in text.split()]
    return sum(parts) / len(parts)


@pytest.mark.parametrize("budget", [1, 12, 10_000])
@pytest.mark.parametrize("batch_size", [3, 32])
def test_rows_come_back_in_the_order_they_were_given(budget, batch_size):
    fungi = make((KL_, SIMCLR_), budget=budget, fungi={"batch_size": batch_size})
    blocks = fungi.fit_blocks(TEXTS, ids=IDS)
    expected = torch.stack([oracle(fungi, text) for text in TEXTS])
    expected = expected / expected.norm(dim=1, keepdim=True)
    np.testing.assert_allclose(blocks["embedding"], expected.numpy(), atol=1e-6)
    for at, (text, row_id) in enumerate(zip(TEXTS, IDS, strict=True)):
        for name, values in fungi.blocks([text], ids=[row_id]).items():
            np.testing.assert_allclose(values[0], blocks[name][at], atol=1e-5, err_msg=f"{name} of {row_id}")


def test_blocks_of_different_rows_differ_so_that_an_exchange_would_show():
    for name, block in make((KL_, SIMCLR_)).fit_blocks(TEXTS, ids=IDS).items():
        near = np.linalg.norm(block[:, None] - block[None], axis=2) + 9 * np.eye(len(block))
        assert near.min() > 1e-3, name


# Negatives


def oracle_latents(fungi, text, row_id, views):
    head = fungi.heads["simclr"]
    texts = Deletions(3, 0.3).texts(text, generator(3, row_id, "simclr"))[:views]
    return torch.stack([head.weight.double() @ oracle(fungi, text) + head.bias.double() for text in texts])


@pytest.mark.parametrize(("negative_views", "views"), [(1, 1), (2, 2), (3, 3), (9, 3), (None, 2)])
def test_the_first_so_many_views_of_a_row_are_negatives_two_of_a_text_where_it_is_not_said(negative_views, views):
    fungi = make((replace(SIMCLR_, negative_views=negative_views),))
    rows = list(zip(IDS, TEXTS, strict=True))
    expected = torch.stack([oracle_latents(fungi, text, row_id, views) for row_id, text in rows])
    latents = fungi.engine.encode(fungi.engine.objectives[0], rows)
    assert latents.dtype == torch.float32
    torch.testing.assert_close(latents.double(), expected, atol=1e-6, rtol=1e-5)


def test_the_bank_is_two_latents_of_each_row_that_is_drawn():
    fungi = make((SIMCLR_,)).fit(TEXTS, ids=IDS)
    bank = fungi.negatives["simclr"]
    assert bank.shape == (len(TEXTS) * 2, 6)
    expected = torch.cat([oracle_latents(fungi, *row, 2) for row in zip(TEXTS, IDS, strict=True)])
    distances = torch.cdist(bank.double(), expected)
    assert distances.min(dim=0).values.max() < 1e-5
    assert distances.min(dim=1).values.max() < 1e-5
    few = make((replace(SIMCLR_, negatives=3),)).fit(TEXTS, ids=IDS).negatives["simclr"]
    assert few.shape == (3 * 2, 6)
    torch.testing.assert_close(few, bank[:6])


def test_no_row_gives_an_empty_bank_of_the_right_shape():
    fungi = make((SIMCLR_,))
    assert fungi.engine.encode(SIMCLR_, []).shape == (0, 2, 6)
    fungi.draw_negatives([])
    assert fungi.negatives["simclr"].shape == (0, 6)


# Cut


def test_rows_that_are_cut_are_named_and_said_once():
    fungi = make(most=3)
    with pytest.warns(
        UserWarning, match=r"3 of 8 rows are too long and were cut \(max_tokens 3\): row-0, row-3, row-6$"
    ):
        fungi.blocks(TEXTS, ids=IDS)
    assert fungi.truncated == ["row-0", "row-3", "row-6"]
    with pytest.warns(UserWarning, match=r"4 of 5 .*: row 0, row 1, row 3, \.\.\.$"):
        fungi.blocks([TEXTS[0], TEXTS[0], "1", TEXTS[3], TEXTS[6]])
    assert fungi.truncated == ["row 0", "row 1", "row 3", "row 4"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fungi.blocks(["1 2 3"])
    assert fungi.truncated == []


def test_a_cut_row_has_the_features_of_its_beginning():
    fungi = make(most=3)
    with pytest.warns(UserWarning, match="were cut"):
        blocks = fungi.blocks(["1 2 3 4 5 6", "1 2 3"])
    for name, values in blocks.items():
        np.testing.assert_allclose(values[0], values[1], atol=1e-6, err_msg=name)


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_cut_rows_are_counted_beside_broken_ones_whatever_the_batches(batch_size):
    fungi = make(most=3, fungi={"batch_size": batch_size, "max_failures": 0.5})
    with pytest.warns(UserWarning, match="2 of 6 rows") as caught:
        blocks = fungi.fit_blocks([TEXTS[2], "broken", TEXTS[3], TEXTS[1], "broken", TEXTS[0]])
    assert fungi.truncated == ["row 2", "row 5"]
    assert [failure.id for failure in fungi.failures] == ["row 1", "row 4"]
    assert sorted(str(warning.message).partition(" rows")[0] for warning in caught) == ["2 of 6", "2 of 6"]
    assert [math.isnan(row[0]) for row in blocks["embedding"]] == [False, True, False, False, True, False]
