"""The attacks of ART on networks that `evasion_peers` exported, beside ours.

Attacks named after the file are the only ones that run. The networks are evaluated and differentiated here by numpy alone, so that neither our
gradients nor a framework's are compared with themselves.
"""

import json
import sys
from datetime import date

import art
import numpy as np
from art.attacks.evasion import (
    BasicIterativeMethod,
    CarliniL2Method,
    FastGradientMethod,
    ProjectedGradientDescent,
)
from art.estimators.classification.classifier import ClassGradientsMixin, ClassifierMixin
from art.estimators.estimator import BaseEstimator, LossGradientsMixin

SIDE = 28


class Dense:
    def __init__(self, layer):
        self.biases = np.array(layer["biases"])
        self.weights = np.array(layer["weights"]).reshape(len(self.biases), -1)

    def forward(self, x):
        return x @ self.weights.T + self.biases

    def backward(self, gradient):
        return gradient @ self.weights


class Conv2d:
    """As a matrix: what goes in is an image of one channel."""

    def __init__(self, layer):
        height, width = layer["kernel"]
        (top, bottom), (left, right) = layer["padding"]
        stride, biases = layer["stride"], np.array(layer["biases"])
        kernels = np.array(layer["weights"]).reshape(len(biases), height, width)
        rows = (SIDE + top + bottom - height) // stride + 1
        columns = (SIDE + left + right - width) // stride + 1
        full = np.zeros((len(biases), rows, columns, SIDE, SIDE))
        for row in range(rows):
            for column in range(columns):
                for y in range(height):
                    for x in range(width):
                        i, j = row * stride + y - top, column * stride + x - left
                        if 0 <= i < SIDE and 0 <= j < SIDE:
                            full[:, row, column, i, j] = kernels[:, y, x]
        self.weights = full.reshape(-1, SIDE * SIDE)
        self.biases = np.repeat(biases, rows * columns)

    forward = Dense.forward
    backward = Dense.backward


class Polynomial:
    def __init__(self, layer):
        self.value = np.polynomial.Polynomial(layer["coefficients"])
        self.slope = self.value.deriv()

    def forward(self, x):
        self.x = x
        return self.value(x)

    def backward(self, gradient):
        return gradient * self.slope(self.x)


class Relu:
    def __init__(self, _):
        pass

    def forward(self, x):
        self.x = x
        return np.maximum(x, 0)

    def backward(self, gradient):
        return gradient * (self.x > 0)


KINDS = {"dense": Dense, "conv2d": Conv2d, "polynomial": Polynomial, "relu": Relu}


class Network(ClassGradientsMixin, ClassifierMixin, LossGradientsMixin, BaseEstimator):
    """What ART asks of a classifier: logits and their gradients."""

    def __init__(self, layers):
        super().__init__(model=None, clip_values=(0.0, 1.0))
        self.layers = [KINDS[layer["kind"]](layer) for layer in layers]
        self.nb_classes = 10

    @property
    def input_shape(self):
        return (SIDE * SIDE,)

    def fit(self, x, y, **_):
        raise NotImplementedError("trained already")

    def predict(self, x, batch_size=128, **_):
        x = np.asarray(x, dtype=np.float64)
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def _backward(self, gradient):
        for layer in reversed(self.layers):
            gradient = layer.backward(gradient)
        return gradient

    def loss_gradient(self, x, y, **_):
        """Of the cross entropy with one-hot labels."""
        logits = self.predict(x)
        exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
        return self._backward(exponents / exponents.sum(axis=1, keepdims=True) - y)

    def class_gradient(self, x, label=None, **_):
        """Of the logits of `label`, one per sample; with ART's axis of classes."""
        logits = self.predict(x)
        chosen = np.zeros_like(logits)
        chosen[np.arange(len(logits)), label] = 1
        return self._backward(chosen)[:, None, :]


def attack(network, name, eps):
    batch = {"batch_size": 250}
    if name == "fgsm":
        return FastGradientMethod(network, eps=eps, eps_step=eps, **batch)
    small = {"eps": eps, "eps_step": 0.01, "max_iter": 40, "verbose": False, **batch}
    if name == "bim":
        return BasicIterativeMethod(network, **small)
    if name == "pgd":
        return ProjectedGradientDescent(network, num_random_init=1, **small)
    # ART searches its step sizes by halving and doubling, so that fewer steps do, and doubles
    # the constant where CleverHans takes it tenfold, so that it needs more of those.
    return CarliniL2Method(
        network, learning_rate=0.01, binary_search_steps=16, max_iter=60, verbose=False, **batch
    )


def main():
    only = sys.argv[2:]
    with open(sys.argv[1]) as file:
        networks = json.load(file)
    print(f"# tests/peers/art/run DATA, {date.today():%d %B %Y}: ART {art.__version__}, numpy {np.__version__}")
    print("network,data,attack,eps,samples,right,right_art,l2,l2_art")
    for entry in networks:
        network = Network(entry["layers"])
        images = np.array(entry["images"]) / 255.0
        labels = np.array(entry["labels"])
        logits = network.predict(images[: len(entry["logits"])])
        worst = np.abs(logits - np.array(entry["logits"])).max()
        assert worst < 1e-9, f"{entry['name']}: logits differ by {worst}"
        for ours in entry["attacks"]:
            if only and ours["attack"] not in only:
                continue
            np.random.seed(1)
            count = ours["samples"]
            x = images[:count]
            examples = attack(network, ours["attack"], ours["eps"]).generate(x=x.astype(np.float32))
            right = int((network.predict(examples).argmax(axis=1) == labels[:count]).sum())
            l2 = float(np.sqrt(((examples - x) ** 2).sum(axis=1)).mean())
            print(
                f"{entry['name']},{entry['data']},{ours['attack']},{ours['eps']},{count},"
                f"{ours['right']},{right},{ours['l2']:.3f},{l2:.3f}",
                flush=True,
            )


main()
