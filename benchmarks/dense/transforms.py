"""What happens to a sample on its way to a batch: resizing and random augmentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Sample = dict[str, Tensor]

SCALES: Final = (1.0, 1.2, 1.5)


def resize(sample: Sample, size: Sequence[int]) -> Sample:
    """A sample at another size: the image is interpolated, labels are those of the nearest pixel.

    Args:
        sample: As `Source.read` gives it, as tensors.
        size: Height and width.
    """
    return {
        name: _sized(value, size, antialias=True) if name == "image" else _nearest(value, size)
        for name, value in sample.items()
    }


@dataclass(frozen=True)
class ScaleCropFlip:
    """Enlarges by 1, 1.2 or 1.5, crops to the old size at random, flips half of the samples.

    A picture enlarged by s looks like one from s times nearer: depth is divided by s, inverse depth
    multiplied. A flip mirrors normals too.

    Args:
        inverse_depth: Whether depth grows with s.
        unit_normals: Bring interpolated normals back to unit length, and keep pixels invalid whose
            nearest one is.
        centres: Whether a label is that of the pixel with the nearest centre. Otherwise that of
            `torch.nn.functional.interpolate(mode="nearest")`, which rounds down: labels lie up to
            a pixel to the right and below the picture.

    The augmentation of the public code (MTAN, LibMTL, CAGrad, Nash-MTL ...) has all of them
    `False`, also for Cityscapes' inverse depth.
    """

    inverse_depth: bool = False
    unit_normals: bool = False
    centres: bool = False

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """A random version of a sample.

        Args:
            sample: Tensors as in `resize`.
            rng: What it draws from.
        """
        height, width = sample["image"].shape[-2:]
        scale = SCALES[rng.integers(len(SCALES))]
        rows, columns = int(height / scale), int(width / scale)
        top = int(rng.integers(height - rows + 1))
        left = int(rng.integers(width - columns + 1))
        if scale != 1:
            cut = (..., slice(top, top + rows), slice(left, left + columns))
            sample = self._enlarge({k: v[cut] for k, v in sample.items()}, (height, width), scale)
        return _flip(sample) if rng.random() < 0.5 else sample

    def _enlarge(self, sample: Sample, size: tuple[int, int], scale: float) -> Sample:
        enlarged = {}
        for name, value in sample.items():
            if name in ("image", "normal"):
                enlarged[name] = _sized(value, size, align_corners=True)
            else:
                enlarged[name] = _nearest(value, size) if self.centres else _floor(value, size)
        enlarged["depth"] = enlarged["depth"] * (scale if self.inverse_depth else 1 / scale)
        if self.unit_normals and "normal" in sample:
            valid = _nearest((sample["normal"] != 0).any(0), size)
            enlarged["normal"] = torch.where(valid, F.normalize(enlarged["normal"], dim=0), 0.0)
        return enlarged


def _flip(sample: Sample) -> Sample:
    flipped = {name: value.flip(-1) for name, value in sample.items()}
    if "normal" in flipped:
        flipped["normal"] = flipped["normal"] * torch.tensor([-1.0, 1.0, 1.0]).view(3, 1, 1)
    return flipped


def _sized(
    value: Tensor, size: Sequence[int], *, align_corners: bool = False, antialias: bool = False
) -> Tensor:
    return F.interpolate(
        value[None],
        tuple(size),
        mode="bilinear",
        align_corners=align_corners,
        antialias=antialias,
    )[0]


def _floor(value: Tensor, size: Sequence[int]) -> Tensor:
    """The public code's nearest pixel."""
    height, width = value.shape[-2:]
    planes = value.reshape(1, -1, height, width).float()  # class ids are exact
    found = F.interpolate(planes, tuple(size), mode="nearest").to(value.dtype)
    return found.reshape(*value.shape[:-2], *size)


def _nearest(value: Tensor, size: Sequence[int]) -> Tensor:
    rows, columns = (
        ((torch.arange(new) + 0.5) * old / new).long()
        for new, old in zip(size, value.shape[-2:], strict=True)
    )
    return value[..., rows[:, None], columns]
