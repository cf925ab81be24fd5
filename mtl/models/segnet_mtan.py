"""SegNet as backbone, and the attention of MTAN as heads."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtl.errors import ConfigError

_STAGES = 5


class Stage(NamedTuple):
    """What heads see of one stage of the backbone."""

    early: Tensor
    """Features that a mask is computed from: after the first convolution of an encoder stage, or
    what enters a decoder stage."""
    late: Tensor
    """Features that the mask selects from: after the stage's last convolution."""


class SegNet(nn.Module):
    """Five stages down and five up, which place what they enlarge where the maxima had been.

    Args:
        in_channels: Channels of the input.
        width: Channels of the first stage; the others have 2, 4, 8 and 8 times as many.

    Heights and widths are multiples of 32. The output has a `Stage` for each of the ten stages,
    from the first of the encoder to the last of the decoder: heads attach everywhere.

    References:
        Badrinarayanan et al., SegNet, TPAMI 2017, https://arxiv.org/abs/1511.00561; depths and
        widths are those of MTAN's code, without a fourth convolution.
    """

    def __init__(self, in_channels: int = 3, width: int = 64) -> None:
        super().__init__()
        widths = stage_widths(width)
        self.down_in = nn.ModuleList(map(convolution, [in_channels, *widths[:-1]], widths))
        self.down_out = nn.ModuleList(_repeat(w, stage) for stage, w in enumerate(widths))
        self.up_in = nn.ModuleList(map(convolution, widths, [widths[0], *widths[:-1]]))
        self.up_out = nn.ModuleList(
            _repeat(w, stage) for stage, w in enumerate([widths[0], *widths[:-1]])
        )
        self.out_channels = width
        self.apply(initialise)

    def forward(self, pictures: Tensor) -> list[Stage]:
        """Features of all stages.

        Raises:
            ConfigError: Height or width is no multiple of 32.
        """
        if pictures.shape[-2] % 2**_STAGES or pictures.shape[-1] % 2**_STAGES:
            raise ConfigError(
                f"SegNet: expected height and width to be multiples of {2**_STAGES}, got "
                f"{list(pictures.shape[-2:])}; change dataset.resize."
            )
        features, stages, places = pictures, [], []
        for enter, leave in zip(self.down_in, self.down_out, strict=True):
            early = enter(features)
            late = leave(early)
            stages.append(_offer(early, late))
            features, where = F.max_pool2d(late, 2, return_indices=True)
            places.append(where)
        for enter, leave in zip(reversed(self.up_in), reversed(self.up_out), strict=True):
            enlarged = F.max_unpool2d(features, places.pop(), [2, 2])
            features = leave(enter(enlarged))
            stages.append(_offer(enlarged, features))
        return stages


class MTANHeads:
    """Makes MTAN's heads, which share the convolutions that follow their attention.

    Every stage of the backbone has a mask a task, computed from the stage's early features and from
    what the task selected in the stage before; it is multiplied with the late features. A
    convolution that is common to all tasks leads to the next stage: a parameter of these is shared
    by all heads.

    Args:
        width: That of `SegNet`.

    Example:
        >>> make = MTANHeads(width=4)
        >>> segmentation, depth = make(4, 13), make(4, 1)
        >>> segmentation.down_common is depth.down_common
        True

    References:
        Liu et al., End-to-End Multi-Task Learning with Attention, CVPR 2019, Sec. 3,
        https://arxiv.org/abs/1803.10704
    """

    def __init__(self, *, width: int = 64) -> None:
        self._width = width
        widths = stage_widths(width)
        self._down = nn.ModuleList(map(convolution, widths, [*widths[1:], widths[-1]]))
        self._up = nn.ModuleList(map(convolution, widths, [widths[0], *widths[:-1]]))
        for common in (self._down, self._up):
            common.apply(initialise)

    def __call__(self, in_channels: int, out_channels: int) -> MTANHead:
        """The head of one task.

        Args:
            in_channels: The backbone's `out_channels`.
            out_channels: Channels of the prediction.

        Raises:
            ConfigError: The backbone has another width.
        """
        if in_channels != self._width:
            raise ConfigError(
                f"`model.head.width`: expected the backbone's {in_channels}, got {self._width}."
            )
        return MTANHead(stage_widths(self._width), out_channels, self._down, self._up)


class MTANHead(nn.Module):
    """Attention of one task at every stage, and its prediction; made by `MTANHeads`.

    Args:
        widths: Channels of the stages.
        out_channels: Channels of the prediction.
        down_common: Convolutions after the encoder's attention.
        up_common: Convolutions before the decoder's attention.
    """

    def __init__(
        self,
        widths: list[int],
        out_channels: int,
        down_common: nn.ModuleList,
        up_common: nn.ModuleList,
    ) -> None:
        super().__init__()
        self.down_masks = nn.ModuleList(
            _mask(w if stage == 0 else 2 * w, w) for stage, w in enumerate(widths)
        )
        given = [widths[0], *widths[:-1]]  # by the decoder stages
        self.up_masks = nn.ModuleList(
            _mask(before + after, after) for before, after in zip(widths, given, strict=True)
        )
        self.predict = nn.Sequential(
            nn.Conv2d(widths[0], widths[0], 3, padding=1), nn.Conv2d(widths[0], out_channels, 1)
        )
        self.apply(initialise)
        self.down_common, self.up_common = down_common, up_common

    def forward(self, stages: list[Stage]) -> Tensor:
        """Prediction at the size of the pictures."""
        selected: Tensor | None = None
        for stage, mask, common in zip(
            stages[:_STAGES], self.down_masks, self.down_common, strict=True
        ):
            seen = [stage.early] if selected is None else [stage.early, selected]
            selected = F.max_pool2d(common(mask(torch.cat(seen, 1)) * stage.late), 2)
        assert selected is not None
        for stage, mask, common in zip(
            stages[_STAGES:], reversed(self.up_masks), reversed(self.up_common), strict=True
        ):
            enlarged = F.interpolate(selected, scale_factor=2, mode="bilinear", align_corners=True)
            selected = mask(torch.cat([stage.early, common(enlarged)], 1)) * stage.late
        return self.predict(selected)


def stage_widths(width: int) -> list[int]:
    """Channels of the five stages."""
    return [width, 2 * width, 4 * width, 8 * width, 8 * width]


def convolution(in_channels: int, out_channels: int) -> nn.Sequential:
    """3x3 convolution, batch normalisation, ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.BatchNorm2d(out_channels), nn.ReLU()
    )


def initialise(module: nn.Module) -> None:
    """Xavier's normal initialisation for convolutions, without bias."""
    if isinstance(module, nn.Conv2d):
        nn.init.xavier_normal_(module.weight)
        assert module.bias is not None
        nn.init.zeros_(module.bias)


def _offer(early: Tensor, late: Tensor) -> Stage:
    """Views, so that no tensor that heads see depends on another one that they see."""
    return Stage(early.view_as(early), late.view_as(late))


def _repeat(width: int, stage: int) -> nn.Sequential:
    """The convolutions that follow a stage's first one: one in the first two, else two."""
    return nn.Sequential(*(convolution(width, width) for _ in range(1 if stage < 2 else 2)))


def _mask(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
        nn.Conv2d(out_channels, out_channels, 1),
        nn.BatchNorm2d(out_channels),
        nn.Sigmoid(),
    )
