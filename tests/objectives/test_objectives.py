import math
from dataclasses import dataclass

import pytest
import torch

from sporeprint import DINO, KL, SimCLR, check_objective
from sporeprint.errors import RecipeError
from sporeprint.features.engine import make_head
from sporeprint.features.sample_gradients import latents_of
from sporeprint.objectives import Objective
from sporeprint.objectives.views.image import Crops, Patches
from sporeprint.objectives.views.text import Deletions
from sporeprint.objectives.views.whole import Whole


def numbers(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


# The formulas of METHOD.md, one number at a time


def softmax(values):
    most = max(values)
    exponentials = [math.exp(value - most) for value in values]
    return [value / sum(exponentials) for value in exponentials]


def slow_kl(sample, temperature):
    """KL(uniform || softmax(z / T)) of one view, mean over views."""
    losses = []
    for view in sample.tolist():
        uniform = 1 / len(view)
        losses.append(sum(uniform * math.log(uniform / p) for p in softmax([z / temperature for z in view])))
    return sum(losses) / len(losses)


def slow_dino(student, teacher, global_crops, student_t, teacher_t):
    """Cross-entropy summed over all pairs of a global and any view, same-view pairs included."""
    total = 0.0
    for global_view in teacher.tolist()[:global_crops]:
        target = softmax([z / teacher_t for z in global_view])
        for view in student.tolist():
            predicted = softmax([z / student_t for z in view])
            total -= sum(p * math.log(q) for p, q in zip(target, predicted, strict=True))
    return total


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))


def slow_simclr(sample, negatives, temperature, tempered):
    """Mean over i of [ -mean over j != i of s_ij / T + logsumexp over all j != i, positives and negatives ]."""
    views, bank = sample.tolist(), negatives.tolist()
    losses = []
    for i, view in enumerate(views):
        positives = [cosine(view, other) for j, other in enumerate(views) if j != i]
        everything = positives + [cosine(view, other) for other in bank]
        scale = temperature if tempered else 1.0
        log_sum = math.log(sum(math.exp(s / scale) for s in everything))
        losses.append(-sum(positives) / len(positives) / temperature + log_sum)
    return sum(losses) / len(losses)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 15.0])
def test_kl_is_the_formula_for_each_sample(temperature):
    latents = numbers(4, 1, 7) * 3
    expected = [slow_kl(sample, temperature) for sample in latents]
    assert KL(temperature=temperature).loss(latents).tolist() == pytest.approx(expected, rel=1e-12)


def test_kl_of_two_numbers_by_hand():
    # softmax of (0, ln 3) is (1/4, 3/4): ln(1/2 : 1/4) / 2 + ln(1/2 : 3/4) / 2 = ln(4/3) / 2
    latents = torch.tensor([[[0.0, math.log(3)]]], dtype=torch.float64)
    assert KL().loss(latents).item() == pytest.approx(math.log(4 / 3) / 2, rel=1e-14)


def test_kl_of_several_views_is_their_mean():
    latents = numbers(2, 3, 5)
    expected = [slow_kl(sample, 1.0) for sample in latents]
    assert KL(augmentation=Patches(2)).loss(latents).tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("teacher", [True, False])
def test_dino_is_the_formula_for_each_sample(teacher):
    objective = DINO(augmentation=Crops(2, 3), student_temperature=0.3, teacher_temperature=0.2)
    student, given = numbers(4, 5, 6), numbers(4, 5, 6, seed=1)
    expected = [
        slow_dino(mine, other, 2, 0.3, 0.2) for mine, other in zip(student, given if teacher else student, strict=True)
    ]
    losses = objective.loss(student, given) if teacher else objective.loss(student)
    assert losses.tolist() == pytest.approx(expected, rel=1e-12)


def test_dino_gives_the_teacher_no_gradient():
    student = numbers(2, 12, 6).requires_grad_()
    teacher = numbers(2, 12, 6, seed=1).requires_grad_()
    dino = DINO(augmentation=Crops())
    dino.loss(student, teacher).sum().backward()
    assert teacher.grad is None
    alone = numbers(2, 12, 6).requires_grad_()
    dino.loss(alone).sum().backward()
    fixed = numbers(2, 12, 6).requires_grad_()
    dino.loss(fixed, fixed.detach().clone()).sum().backward()
    torch.testing.assert_close(alone.grad, fixed.grad)


@pytest.mark.parametrize("tempered", [True, False])
@pytest.mark.parametrize("bank", [0, 1, 9])
def test_simclr_is_the_formula_for_each_sample(tempered, bank):
    objective = SimCLR(augmentation=Patches(2), temperature=0.2, temper_negatives=tempered)
    latents, negatives = numbers(3, 4, 6) * 2, numbers(bank, 6, seed=1) * 5
    expected = [slow_simclr(sample, negatives, 0.2, tempered) for sample in latents]
    assert objective.loss(latents, negatives).tolist() == pytest.approx(expected, rel=1e-12)
    if not bank:
        assert objective.loss(latents).tolist() == pytest.approx(expected, rel=1e-12)


def test_simclr_of_two_equal_views_and_an_orthogonal_negative_by_hand():
    # every s_ij is 1, the negative's is 0: -1 / T + ln(e^(1/T) + 1) with T = 1/2
    latents = torch.tensor([[[2.0, 0.0]] * 4], dtype=torch.float64)
    negatives = torch.tensor([[0.0, 7.0]], dtype=torch.float64)
    expected = -2 + math.log(3 * math.exp(2) + 1)
    objective = SimCLR(augmentation=Patches(2), temperature=0.5)
    assert objective.loss(latents, negatives).item() == pytest.approx(expected, rel=1e-14)


def test_simclr_of_latents_that_rounding_alone_parts_neither_attracts_nor_repels():
    latents = torch.tensor([[[1.0, 0.0], [1.0, 1e-5]]], dtype=torch.float64, requires_grad=True)
    negatives = torch.tensor([[2.0, -2e-5], [0.0, 1.0]], dtype=torch.float64)  # the first is the views themselves
    loss = SimCLR(augmentation=Patches(2), temperature=0.5).loss(latents, negatives)
    (gradient,) = torch.autograd.grad(loss, latents)
    share = 1 / (2 * math.exp(2) + 1)  # of the orthogonal one; each view's loss counts half, and 1 / T is 2
    assert loss.item() == pytest.approx(math.log(2 * math.exp(2) + 1) - 2, abs=1e-4)
    expected = torch.tensor([[[0.0, share], [0.0, share]]], dtype=torch.float64)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5)
    equal = torch.ones(1, 3, 2, requires_grad=True)
    (nothing,) = torch.autograd.grad(SimCLR(augmentation=Patches(2)).loss(equal, torch.ones(4, 2)), equal)
    assert not nothing.any()


def test_simclr_of_latents_a_little_apart_pulls_them_together():
    # s = cos a; with two views and no negatives the loss is 0, so one far negative: p = e^2s / (e^2s + 1) at T = 1/2
    latents = torch.tensor([[[1.0, 0.0, 0.0], [1.0, 1e-4, 0.0]]], dtype=torch.float64, requires_grad=True)
    negatives = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)
    loss = SimCLR(augmentation=Patches(2), temperature=0.5).loss(latents, negatives)
    (gradient,) = torch.autograd.grad(loss, latents)
    pull = 2 * 1e-4 / (math.exp(2) + 1)  # 1 / T times the distance times 1 - p, half of it from each view's loss
    torch.testing.assert_close(gradient[0, :, 1], torch.tensor([-pull, pull], dtype=torch.float64), rtol=1e-6, atol=0)


def test_simclr_at_the_papers_temperature_is_finite_in_float32():
    latents = numbers(2, 49, 96, dtype=torch.float32).requires_grad_()
    losses = SimCLR().loss(latents, numbers(500, 96, seed=1, dtype=torch.float32))
    losses.sum().backward()
    assert losses.isfinite().all()
    assert latents.grad.isfinite().all()


def gradient(objective, latents, **extras):
    latents = latents.clone().requires_grad_()
    (result,) = torch.autograd.grad(objective.loss(latents, **extras).sum(), latents)
    return result.double().flatten(1)


def test_kl_temperatures_of_library_and_research_code_point_the_same_way():
    # To second order softmax(z) - 1/L is z + z^2 / 2: the cosine is 1 - var(z) / 4, and a head of width 768 on a unit
    # embedding has var(z) = 2 / (3 * 768). METHOD.md's 0.9999 is this, rounded up.
    head = make_head(0, "kl", 768, 768)
    embeddings = numbers(20, 1, 768)

    def reach(temperature):
        objective, leaf = KL(temperature=temperature), embeddings.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(objective.loss(latents_of(head, objective, leaf)).sum(), leaf)
        return gradient.flatten(1)

    assert torch.cosine_similarity(reach(1.0), reach(15.0), eps=0).min() > 1 - 2 / (3 * 768) / 4 * 1.5


def test_kl_gradient_survives_float32_where_the_latents_are_nearly_uniform():
    latents = numbers(3, 1, 768, dtype=torch.float32) * 1e-3
    for temperature in (1.0, 15.0):
        objective = KL(temperature=temperature)
        single, double = gradient(objective, latents), gradient(objective, latents.double())
        assert ((single - double).norm(dim=1) / double.norm(dim=1)).max() < 1e-5


def test_defaults_are_the_papers():
    assert (KL().latent, KL().temperature, KL().views, KL().normalize) == (768, 1.0, 1, True)
    dino = DINO().for_modality("image")
    assert (dino.latent, dino.views, dino.normalize) == (2048, 12, True)
    assert (dino.student_temperature, dino.teacher_temperature) == (0.1, 0.07)


@pytest.mark.parametrize("objective", [KL(), DINO(), SimCLR(), SimCLR(temper_negatives=False), SimCLR(negatives=0)])
def test_contract_holds_for_ours(objective):
    check_objective(objective)


# Broken plug-ins


@dataclass(frozen=True)
class MeanOfBatch(KL):
    def loss(self, latents):
        return super().loss(latents).mean()


@dataclass(frozen=True)
class BatchNorm(KL):
    def loss(self, latents):
        return super().loss((latents - latents.mean(0)) / latents.std(0))


@dataclass(frozen=True)
class CentredTeacher(DINO):
    def loss(self, latents, teacher=None):
        return super().loss(latents, teacher - teacher.mean(dim=0))


@dataclass(frozen=True)
class CentredOnTheBatch(KL):
    def loss(self, latents):
        return (latents - latents.detach().mean(dim=0)).pow(2).sum(dim=(1, 2))


@dataclass(frozen=True)
class WeighedByTheBatch(KL):
    """The same losses in every batch, but not the same gradients."""

    def loss(self, latents):
        losses, weight = super().loss(latents), latents.detach().std()
        return losses.detach() + weight * (losses - losses.detach())


@dataclass(frozen=True)
class MovingCentre(KL):
    def __post_init__(self):
        object.__setattr__(self, "centre", 0.0)

    def loss(self, latents):
        scale = torch.linspace(0, 1, latents.shape[-1])
        losses = super().loss(latents + self.centre * scale)
        object.__setattr__(self, "centre", 0.9 * self.centre + 0.1 * latents.mean().item() + 0.1)
        return losses


@dataclass(frozen=True)
class Counting(KL):
    calls: int = 0

    def loss(self, latents):
        object.__setattr__(self, "calls", self.calls + 1)
        return super().loss(latents)


@dataclass(frozen=True)
class Dropout(KL):
    def loss(self, latents):
        return super().loss(torch.dropout(latents, 0.5, train=True))


@dataclass(frozen=True)
class DrawsInVain(KL):
    def loss(self, latents):
        torch.rand(3)
        return super().loss(latents)


@dataclass(frozen=True)
class ScalesTheBank(SimCLR):
    def loss(self, latents, negatives=None):
        return super().loss(latents, negatives.mul_(2))


@dataclass(frozen=True)
class Constant(KL):
    def loss(self, latents):
        return (latents * 0).sum(dim=(1, 2))


@dataclass(frozen=True)
class Overflows(KL):
    def loss(self, latents):
        return (latents * 1e30).exp().sum(dim=(1, 2))


@pytest.mark.parametrize(
    ("objective", "complaint"),
    [
        (MeanOfBatch(), "not their mean"),
        (BatchNorm(), "reads other samples' latents"),
        (CentredOnTheBatch(), "changes with other samples' latents"),
        (WeighedByTheBatch(), "changes with other samples' latents"),
        (CentredTeacher(), "reads other samples' teacher latents"),
        (MovingCentre(), "keeps state"),
        (Counting(), "changed while"),
        (Dropout(), "draws numbers"),
        (DrawsInVain(), "global generator"),
        (ScalesTheBank(), "changes negatives in place"),
        (Constant(), "does not depend on its own latents"),
        (Overflows(), "not finite"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Objective) else "",
)
def test_contract_fails_on_a_broken_objective(objective, complaint):
    with pytest.raises(AssertionError, match=complaint):
        check_objective(objective)


@pytest.mark.parametrize(
    "make",
    [
        lambda: KL(temperature=0),
        lambda: KL(temperature=float("nan")),
        lambda: DINO(student_temperature=-1),
        lambda: DINO(teacher_temperature=0),
        lambda: SimCLR(temperature=0),
        lambda: SimCLR(negatives=-1),
        lambda: SimCLR(negative_views=0),
        lambda: SimCLR(negative_views=True),
        lambda: SimCLR(augmentation=Deletions(1)),
        lambda: SimCLR(augmentation=Whole()),
        lambda: SimCLR(augmentation=Patches(1)),
    ],
)
def test_constants_that_cannot_be_are_refused(make):
    with pytest.raises(RecipeError, match="expected"):
        make()


@dataclass(frozen=True)
class Mine(Objective):
    name: str = "mine"
    latent: int = 5

    def loss(self, latents):
        return latents.pow(3).sum(dim=(1, 2))


def test_an_objective_without_augmentation_takes_the_plain_view():
    assert Mine().views == 1
    check_objective(Mine())
