"""The base of what prepares samples, and batches of it on their way to the network."""

import pytest
import torch
from PIL import Image

from small import PREPROCESS
from sporeprint.backbones.inputs.inputs import ImageInputs, Inputs, batch_size, batch_to, for_network
from sporeprint.backbones.inputs.preprocess import Preprocess
from sporeprint.errors import RecipeError
from sporeprint.objectives.views.image import Crops

NAMED = {"input_ids": torch.tensor([[1, 2], [3, 0], [4, 0]]), "input_values": torch.ones(3, 4), "pooled": torch.ones(3)}


def test_a_plug_in_that_defines_the_least_has_plain_answers_to_the_rest():
    inputs = Inputs()
    sample = object()
    assert inputs.prepare(sample) is sample
    assert inputs.truncates(sample) is False
    assert (inputs.length(sample), inputs.same(sample), inputs.limits()) == (1, 0, {})


@pytest.mark.parametrize(
    "use",
    [
        lambda inputs: inputs.load("a"),
        lambda inputs: inputs.digest("a"),
        lambda inputs: inputs.bulk("a"),
        lambda inputs: inputs("a"),
        lambda inputs: inputs.collate(["a"]),
        lambda inputs: inputs.probes(),
        lambda inputs: inputs.describe(),
    ],
)
def test_what_a_plug_in_must_define_is_not_made_up(use):
    with pytest.raises(NotImplementedError):
        use(Inputs())


def test_images_weigh_their_pixels_and_probes_are_of_the_networks_size():
    assert PREPROCESS.bulk(Image.new("RGB", (7, 5))) == 3 * 35
    assert (PREPROCESS.modality, PREPROCESS.limits()) == ("image", {"image_size": 32})
    probes = PREPROCESS.probes()
    assert [tuple(probe.shape) for probe in probes] == [(3, 32, 32)] * 3
    assert not torch.equal(probes[0], probes[1])
    assert torch.equal(probes[0], PREPROCESS.probes()[0])
    assert torch.equal(ImageInputs().collate(probes), torch.stack(probes))


def test_views_that_a_backbone_cannot_take_are_refused_with_others_that_it_can():
    inputs = Preprocess(size=32)  # patches unknown
    with pytest.raises(
        RecipeError, match=r"views at 0.5 .* 32 x 32; use another preset \('free' or 'paper'\).*side=1, local_side=1"
    ):
        Crops(2, 4, local_side=0.5).sizes(inputs)
    assert Crops(2, 4, side=1, local_side=1).sizes(inputs) == [32] * 6


def test_numbers_of_tokens_stay_integers_whatever_the_weights_precision():
    moved = batch_to(NAMED, torch.device("cpu"), torch.bfloat16)
    assert isinstance(moved, dict)
    assert {name: tensor.dtype for name, tensor in moved.items()} == {
        "input_ids": torch.int64,
        "input_values": torch.bfloat16,
        "pooled": torch.bfloat16,
    }
    assert torch.equal(moved["input_ids"], NAMED["input_ids"])
    images = batch_to(torch.ones(2, 3, 4, 4), torch.device("cpu"), torch.float64)
    assert isinstance(images, torch.Tensor)
    assert images.dtype == torch.float64


def test_a_batch_made_in_inference_mode_can_be_differentiated_through():
    with torch.inference_mode():
        batch = {"input_values": torch.ones(2, 3), "input_ids": torch.ones(2, 3, dtype=torch.int64)}
        moved = batch_to(batch, torch.device("cpu"), torch.float32)
        assert isinstance(moved, dict)
    assert not any(tensor.is_inference() for tensor in moved.values())
    weight = torch.ones(3, requires_grad=True)
    (moved["input_values"] * weight).sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [2.0, 2.0, 2.0]


def test_a_batch_is_counted_and_what_is_only_for_us_is_kept_from_the_network():
    assert batch_size(NAMED) == batch_size(torch.ones(3, 3, 4, 4)) == 3
    batch = {**NAMED, "frames": torch.ones(3), "labels": torch.ones(3)}
    given = for_network(batch)
    assert isinstance(given, dict)
    assert set(given) == {"input_ids", "input_values"}
    assert set(batch) == {"input_ids", "input_values", "pooled", "frames", "labels"}
