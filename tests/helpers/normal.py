"""Statistics of normal errors by their definition, from lists of errors, without any sums kept."""

import itertools

import numpy as np


def draw_errors(count, shape, seed=0):
    """Errors of images, larger to one side, and which of them count."""
    rng = np.random.default_rng(seed)
    scale = 1 + np.arange(np.prod(shape)).reshape(shape) / 4
    errors = (scale * rng.gamma(2.0, size=(count, *shape))).astype(np.float32)
    return errors, rng.uniform(size=errors.shape) < 0.7


def by_hand(options, errors, counted):
    """Mean and std of errors [n *t i j] at each position."""
    errors = np.asarray(errors, np.float64)
    grid = errors.shape[1:]
    flat = errors.reshape(len(errors), -1, *grid[-2:])
    there = np.asarray(counted).reshape(flat.shape)
    everything = flat[there]
    mean, std = np.zeros(flat.shape[1:]), np.zeros(flat.shape[1:])
    for place in itertools.product(*map(range, mean.shape)):
        moments = np.array([everything.mean(), (everything**2).mean()])
        for group in groups(options, flat.shape[1:], place):
            values = np.concatenate([flat[:, *one][there[:, *one]] for one in group])
            images = len(values) / len(group)
            if images:
                own = np.array([values.mean(), (values**2).mean()])
                moments = (images * own + options.prior * moments) / (images + options.prior)
        floor = options.floor * everything.std()
        mean[place] = moments[0]
        std[place] = np.sqrt(moments[1] - moments[0] ** 2 + floor**2)
    return mean.reshape(grid), std.reshape(grid)


def groups(options, shape, place):
    """The places [t i j] whose errors count as those of one place, from wide to narrow."""
    if options.by in ("border", "position"):
        ring = distance(shape, place)
        yield [one for one in itertools.product(*map(range, shape)) if distance(shape, one) == ring]
    if options.by == "position":
        tile, row, column = place
        reach = range(-(options.smooth // 2), options.smooth // 2 + 1)
        near = [(tile, row + down, column + across) for down in reach for across in reach]
        yield [one for one in near if 0 <= one[1] < shape[1] and 0 <= one[2] < shape[2]]


def distance(shape, place):
    _, row, column = place
    return min(row, column, shape[1] - 1 - row, shape[2] - 1 - column)
