"""The paper's algorithm, slow and plain, on scikit-learn's exact stumps."""

import numpy as np
from scipy.special import expit, softmax
from sklearn.tree import DecisionTreeRegressor


def stump(x, target):
    tree = DecisionTreeRegressor(max_leaf_nodes=2, random_state=0)
    return tree.fit(x, target).predict(x).reshape(len(x), -1)


def squared(y, raw):
    return y - raw


def cross_entropy(y, raw):
    return np.eye(raw.shape[1])[y[:, 0].astype(int)] - softmax(raw, axis=1)


def fit(x, y, task, outputs, residual, theta, rounds, rate=0.1):
    """Raw training predictions [n, K] and theta [T] after the three blocks."""
    meta, out, non, own = (np.zeros((len(x), outputs)) for _ in range(4))
    for _ in range(rounds[0]):
        meta += rate * stump(x, residual(y, meta))
    for _ in range(rounds[1]):
        gate = expit(theta)[task][:, None]
        r = residual(y, meta + (1 - gate) * non + gate * out)
        inner = (r * (out - non)).sum(1)
        out_tree, non_tree = stump(x, gate * r), stump(x, (1 - gate) * r)
        new = theta.copy()
        for t in range(len(theta)):
            s = expit(theta[t])
            new[t] += rate * s * (1 - s) * inner[task == t].sum()
        theta = new
        out, non = out + rate * out_tree, non + rate * non_tree
    gate = expit(theta)[task][:, None]
    for _ in range(rounds[2]):
        r = residual(y, meta + (1 - gate) * non + gate * out + own)
        for t in range(len(theta)):
            rows = task == t
            own[rows] += rate * stump(x[rows], r[rows])
    return meta + (1 - gate) * non + gate * out + own, theta
