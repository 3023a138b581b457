"""Which rows matter, and what each step adds by each judge."""

from dataclasses import replace

from small_comparison import comparison, entry
from sporeprint.evaluate.choice.candidates import ALL, FREE, PLAIN, RAW
from sporeprint.report.judge_columns import MORE, main_of, steps

LAYERS = {"blocks": ("embedding", "cls-1")}


def compared(*rows):
    return comparison(entries=(entry(RAW, "embedding", 1, 0.6), *rows), reference=RAW, free=FREE, chosen=FREE)


def test_the_choice_without_gradients_does_not_take_the_place_of_the_best_of_its_family():
    layers = [entry(f"cls-{at}", "control", 1, 0.6 + at / 100, **LAYERS) for at in range(8)]
    free, plain = entry(FREE, "chosen", 1, 0.8, **LAYERS), entry(PLAIN, "control", 1, 0.8, **LAYERS)
    whole = compared(*layers, free, plain)
    assert [whole.entries[at].name for at in main_of(whole)] == [RAW, "cls-7", FREE, PLAIN]


def test_the_best_of_a_family_has_the_least_loss_not_the_best_test_rows():
    layers = [entry(f"cls-{at}", "control", 1, 0.6 + at / 100, **LAYERS, loss=0.1 * at) for at in range(9)]
    whole = compared(*layers)
    assert [whole.entries[at].name for at in main_of(whole)] == [RAW, "cls-0"]


def test_a_step_that_takes_no_more_passes_is_none():
    free = entry(FREE, "chosen", 1, 0.8)
    for passes, listed in ((1, []), (12, [MORE])):
        found = steps(compared(free, entry(ALL, "chosen", passes, 0.85)))
        assert [step.words for step in found if step.words == MORE] == listed


def test_a_step_has_the_judges_that_both_entries_have():
    all_of_it = entry(ALL, "chosen", 12, 0.85)
    plain = entry(PLAIN, "control", 12, 0.8)
    (step,) = [step for step in steps(compared(all_of_it, plain)) if step.before.name == PLAIN]
    assert {judge: round(gain, 9) for judge, gain in step.gains.items()} == {"knn": 0.05, "closed": 0.05}
    probed = replace(plain, results={**plain.results, "probe": plain.results["closed"]})
    (step,) = [step for step in steps(compared(all_of_it, probed)) if step.before.name == PLAIN]
    assert round(step.gains["probe"], 9) == 0.03
