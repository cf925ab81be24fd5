"""Features of pictures: the last hidden layer of a small classifier trained on them."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor


class PictureFeatures:
    """A perceptron with hidden layers of 64 and 24 units, of which the 24 are the features.

    Args:
        pictures: `[n, C, H, W]`.
        labels: Classes, `[n]`. With a single class there is nothing to learn: the features are
            then the 24 leading principal components.
    """

    def __init__(self, pictures: Tensor, labels: Tensor) -> None:
        from sklearn.decomposition import PCA
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.neural_network import MLPClassifier

        flat = _flat(pictures)
        if len(torch.unique(labels)) < 2:
            self._components = PCA(min(24, *flat.shape), random_state=0).fit(flat)
            self._network = None
            return
        self._network = MLPClassifier((64, 24), max_iter=60, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # 60 passes are what we ask for
            self._network.fit(flat, labels.numpy())

    def __call__(self, pictures: Tensor) -> np.ndarray:
        """Features, `[n, d]`."""
        hidden = _flat(pictures)
        if self._network is None:
            return self._components.transform(hidden)
        pairs = zip(self._network.coefs_[:2], self._network.intercepts_[:2], strict=True)
        for weights, bias in pairs:
            hidden = np.maximum(hidden @ weights + bias, 0)
        return hidden


def _flat(pictures: Tensor) -> np.ndarray:
    return pictures.flatten(1).double().cpu().numpy()
