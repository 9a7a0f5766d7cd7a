"""Train a small MLP with Adam on a synthetic data set; plain numpy, one process, the same numbers for the same seed."""

import argparse
import itertools
import os
import time

import numpy as np


def build_data(rng, samples, features, classes):
    """Gaussian inputs (samples, features) float32 and labels (samples,) drawn from a random linear teacher."""
    x = rng.standard_normal((samples, features), dtype=np.float32)
    teacher = rng.standard_normal((features, classes), dtype=np.float32)
    return x, np.argmax(x @ teacher, axis=1)


def build_layers(rng, widths):
    """He-initialised weights and zero biases, one (w, b) pair per layer, flattened into one list."""
    params = []
    for fan_in, fan_out in itertools.pairwise(widths):
        params.append(rng.standard_normal((fan_in, fan_out), dtype=np.float32) * np.float32(np.sqrt(2.0 / fan_in)))
        params.append(np.zeros(fan_out, dtype=np.float32))
    return params


def loss_and_gradients(params, x, labels):
    """Mean cross-entropy of a ReLU network and its gradient by each parameter."""
    inputs = [x]
    for i in range(0, len(params), 2):
        z = inputs[-1] @ params[i] + params[i + 1]
        inputs.append(np.maximum(z, 0) if i + 2 < len(params) else z)
    logits = inputs.pop()
    logits = logits - logits.max(axis=1, keepdims=True)
    probabilities = np.exp(logits)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    rows = np.arange(len(labels))
    loss = -np.mean(np.log(probabilities[rows, labels] + 1e-12))
    delta = probabilities
    delta[rows, labels] -= 1
    delta /= np.float32(len(labels))
    gradients = [None] * len(params)
    for i in range(len(params) - 2, -1, -2):
        source = inputs[i // 2]
        gradients[i] = source.T @ delta
        gradients[i + 1] = delta.sum(axis=0)
        if i:
            delta = (delta @ params[i].T) * (source > 0)
    return float(loss), gradients


class Adam:
    """Adam as in Kingma & Ba (2015), algorithm 1."""

    def __init__(self, params, rate):
        self.params, self.rate, self.t = params, rate, 0
        self.m = [np.zeros_like(p) for p in params]
        self.v = [np.zeros_like(p) for p in params]

    def step(self, gradients):
        self.t += 1
        scale = np.float32(self.rate * np.sqrt(1 - 0.999**self.t) / (1 - 0.9**self.t))
        for p, g, m, v in zip(self.params, gradients, self.m, self.v, strict=True):
            np.add(m, np.float32(0.1) * (g - m), out=m)
            np.add(v, np.float32(0.001) * (g * g - v), out=v)
            np.subtract(p, scale * m / (np.sqrt(v) + np.float32(1e-8)), out=p)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--samples", type=int, default=240_000, help="rows of the data set; the default is 1 GB of it")
    parser.add_argument("--features", type=int, default=1024)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--pause", type=float, default=0.03, help="seconds to sleep after each step")
    parser.add_argument("--loss-file", default="/work/loss.csv")
    args = parser.parse_args()

    rng = np.random.default_rng(args.seed)
    x, labels = build_data(rng, args.samples, args.features, 10)
    adam = Adam(build_layers(rng, [args.features, args.hidden, args.hidden, 10]), args.rate)
    print(f"training on {x.nbytes / 1e6:.0f} MB of data, process {os.getpid()}", flush=True)
    with open(args.loss_file, "a", encoding="ascii") as losses:
        for step in range(1, args.steps + 1):
            batch = rng.integers(0, len(x), args.batch)
            loss, gradients = loss_and_gradients(adam.params, x[batch], labels[batch])
            adam.step(gradients)
            line = f"{step} {loss.hex()} {loss:.6f}"
            losses.write(line + "\n")
            losses.flush()
            print(line, flush=True)
            time.sleep(args.pause)
    print("done", flush=True)


if __name__ == "__main__":
    main()
