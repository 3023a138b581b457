"""What a run by the default computes, and what the dearer presets would cost with the same backbone."""

from __future__ import annotations

from sporeprint.errors import RecipeError
from sporeprint.features.fungi import Fungi
from sporeprint.features.presets import FREE, JOINED, passes
from sporeprint.features.recipe import Recipe

DEARER = ("balanced", "paper")


def is_default(fungi: Fungi) -> bool:
    """Return whether the recipe computes and joins what a recipe without objectives does."""
    recipe = fungi.recipe
    return isinstance(recipe, Recipe) and (recipe.objectives, recipe.combination) == (FREE, JOINED)


def preset_costs(fungi: Fungi) -> str:
    """Say in one line what the default computes, and the passes a row of the presets that this backbone can run."""
    families = dict.fromkeys(block["family"] for block in fungi.block_info().values())
    costs = []
    for name in DEARER:
        try:
            costs.append(f"--preset {name} takes {round(passes(name, fungi.network), 1):g}")
        except RecipeError:
            continue  # its views are smaller than what this backbone takes
    return f"free, the default: 1 pass a row for {', '.join(families)}; {', '.join(costs)}"
