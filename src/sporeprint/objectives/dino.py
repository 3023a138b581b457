"""DINO: every crop should predict what the two global crops show. Twelve views."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sporeprint.errors import RecipeError
from sporeprint.objectives.objective import Objective
from sporeprint.objectives.views.image import Crops
from sporeprint.values import is_positive, kind, short_repr


@kind("dino")
@dataclass(frozen=True)
class DINO(Objective):
    """Cross-entropy from a random teacher head on the global crops to a random student head on all crops.

    No centring, no moving average. Same-view pairs are kept: the paper's authors found them to help. For images only.

    augmentation: views with `global_crops`; None for the paper's 2 global and 10 local crops. latent: width of the
    heads' output. name: of block and head. Raises RecipeError.

    Examples
    --------
    >>> import torch
    >>> from sporeprint import DINO
    >>> objective = DINO().for_modality("image")
    >>> objective.views, objective.head_names()
    (12, ['dino', 'dino_teacher'])
    >>> objective.loss(torch.randn(2, 12, 2048)).shape
    torch.Size([2])
    """

    by_modality: ClassVar[Mapping[str, Mapping[str, Any]]] = {"image": {"augmentation": Crops()}}
    by_views: ClassVar[Mapping[str, Mapping[str, Mapping[str, Any]]]] = {
        "native": {"image": {"augmentation": Crops(local_side=0.5)}}
    }
    extra_heads: ClassVar[tuple[str, ...]] = ("teacher",)

    name: str = "dino"
    latent: int = 2048
    augmentation: Any = None
    student_temperature: float = 0.1
    teacher_temperature: float = 0.07

    __repr__ = short_repr

    def __post_init__(self) -> None:
        if not (is_positive(self.student_temperature) and is_positive(self.teacher_temperature)):
            raise RecipeError(
                f"DINO temperatures {self.student_temperature!r} (student) and {self.teacher_temperature!r} (teacher); "
                "expected numbers above 0"
            )
        if self.augmentation is not None and not hasattr(self.augmentation, "global_crops"):
            raise RecipeError(
                f"DINO with {self.augmentation!r}; expected views with global_crops, the number of first views that "
                "the teacher takes, such as Crops()"
            )

    def loss(self, latents: Tensor, teacher: Tensor | None = None) -> Tensor:
        """Return [N] losses. latents, teacher: [N, V, L], global views first; teacher defaults to the student's."""
        globals_ = (latents if teacher is None else teacher).detach()[:, : self.augmentation.global_crops]
        target = torch.softmax(globals_ / self.teacher_temperature, dim=-1)
        log_q = torch.log_softmax(latents / self.student_temperature, dim=-1)
        # The sum over all pairs factorises: sum_g sum_v p_g . log q_v
        return -(target.sum(dim=1) * log_q.sum(dim=1)).sum(dim=-1)
