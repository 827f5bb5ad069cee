"""Small networks of float operators, for passes that schedule what is not packed."""

import numpy as np
from tvm.relax import op

from tests.passes.graphs import const

SHAPE = (2, 3, 33)


def product(e, x):
    w = np.random.default_rng(0).standard_normal((33, 16))
    return e(op.add(e(op.matmul(x, const(w))), const(np.ones(16))))


def norm(e, x):
    return e(op.nn.layer_norm(x, const(np.ones(33)), const(np.zeros(33)), axes=[-1]))


def softmax(e, x):
    return e(op.nn.softmax(x))


def steps(e, x):
    return e(op.multiply(e(op.add(x, const(np.ones(33)))), e(op.tanh(x))))
