"""A row called "paper" says what in it is not the paper's."""

import numpy as np
import pytest

from sporeprint import DINO, KL, Combination, Recipe, SimCLR
from sporeprint.evaluate.choice.candidates import Candidate, full_table
from sporeprint.evaluate.table import Costs, entry_of
from sporeprint.features.combine import NAMED
from sporeprint.objectives import settle
from sporeprint.objectives.views.image import Crops
from sporeprint.run.paper_assembly import departure, mark_paper
from sporeprint.values import to_json

PASSES = {"kl": 1, "dino": 12, "simclr": 49}


def marked(objectives, passes=PASSES, modality="image", views="paper", names=None):
    """The title of the paper's assembly in a store of these objectives. passes: of each objective's views."""
    settled = settle(objectives, modality, views)
    plan = {"recipe": {"objectives": to_json(settled)}, "resolved": {"backbone": {"modality": modality}}}
    names = names or [objective.name for objective in settled]
    info = {"embedding": {"family": "embedding", "views": "whole", "passes": 1}}
    info |= {
        name: {"family": "gradients", "views": "whole" if name == "kl" else name, "passes": passes[name]}
        for name in names
    }
    rows = np.eye(3, dtype=np.float32)
    blocks = dict.fromkeys(info, rows)
    (paper,) = [candidate for candidate in full_table(list(blocks)) if candidate.name == "paper"]
    entry = entry_of(paper, paper.combination.fit(blocks), Costs(info), {})
    plain = entry_of(Candidate("kl", "block", Combination(("kl",))), NAMED["paper"].fit(blocks), Costs(info), {})
    first, second = mark_paper([entry, plain], plan)
    assert second == plain
    assert first.note == departure(entry, plan)
    return f"{first.title} ({first.note})" if first.note else first.title


def test_the_papers_own_needs_no_word():
    assert marked(None) == "paper"
    assert marked([SimCLR(), DINO(), KL()]) == "paper"
    assert marked(None, {"kl": 1, "simclr": 12}, "text") == "paper"


def test_fewer_passes_and_other_objectives_are_said():
    balanced = Recipe.preset("balanced", modality="image").objectives
    assert marked(balanced, {"kl": 1, "dino": 3.3, "simclr": 2.9}) == "paper (7.2 passes instead of 62)"
    assert marked(None, {"kl": 1, "dino": 4.5, "simclr": 12.2}, views="native") == "paper (17.7 passes instead of 62)"
    assert marked([KL()]) == "paper (without dino, simclr, 1 pass instead of 62)"
    assert marked([KL(), SimCLR()]) == "paper (without dino, 50 passes instead of 62)"
    assert marked(None, names=["kl", "dino"]) == "paper (without simclr, 13 passes instead of 62)"
    same = [KL(), DINO(augmentation=Crops(4, 8)), SimCLR()]
    assert marked(same) == "paper (other views)"


def test_other_constants_are_said():
    assert marked([KL(), DINO(), SimCLR(negatives=48)]) == "paper (simclr's negatives 48 instead of 256)"
    assert marked([KL(latent=32), DINO(), SimCLR()]) == "paper (kl's latent 32 instead of 768)"


@pytest.mark.parametrize("plan", [{"recipe": {}, "resolved": {"backbone": {}}}])
def test_a_store_that_knows_no_objectives_is_left_alone(plan):
    rows = np.eye(3, dtype=np.float32)
    blocks = {"embedding": rows, "kl": rows}
    info = {name: {"family": name, "views": "whole", "passes": 1} for name in blocks} | {
        "kl": {"family": "gradients", "views": "whole", "passes": 1}
    }
    entry = entry_of(Candidate("paper", "paper", NAMED["paper"]), NAMED["paper"].fit(blocks), Costs(info), {})
    assert departure(entry, plan) == ""
