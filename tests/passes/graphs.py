"""Pieces of binary transformers as the front end hands them over, and passes run on them.

Scales are powers of two wherever a test compares bit for bit: sums of their products with small
integers are exact in float32 in any order.
"""

from dataclasses import dataclass

import numpy as np
from tvm import relax
from tvm.relax import op

from gsb_tvm.dialect.ops import shape_of
from gsb_tvm.passes.recognize_planes import RecognizePlanes
from gsb_tvm.passes.rewriting import literal
from gsb_tvm.testing import module_of

F = np.float32
CLEAN = relax.transform.DeadCodeElimination()
K = [1, 31, 32, 33, 63, 64, 65]


def const(value):
    return literal(np.asarray(value, F))


def two_level(k, columns, scale=0.5, number=0):
    """Weight (k, columns) of +-scale."""
    return np.random.default_rng(number).choice([-scale, scale], (k, columns)).astype(F)


def quarters(*shape, number=0):
    """Multiples of 1/4 up to 2, a ninth of them 0."""
    return (np.random.default_rng(number).integers(-8, 9, shape) / 4).astype(F)


def through(module, *passes):
    """``module`` after the passes, dead code removed."""
    for one in passes:
        module = CLEAN(one(module))
    return module


def recognised(inputs, build):
    """Module of planes and their products."""
    return through(module_of(inputs, build), RecognizePlanes())


def bindings(module, name):
    """Calls of an operator, in order."""
    return [
        binding.value
        for block in module["main"].body.blocks
        for binding in block.bindings
        if isinstance(binding.value, relax.Call) and getattr(binding.value.op, "name", "") == name
    ]


def split_heads(e, x, heads, width):
    """(batch, tokens, heads * width) to (batch, heads, tokens, width)."""
    batch, tokens = shape_of(x)[:2]
    by_head = e(op.reshape(x, (batch, tokens, heads, width)))
    return e(op.permute_dims(by_head, [0, 2, 1, 3]))


def merge_heads(e, x):
    """Inverse of :func:`split_heads`."""
    batch, heads, tokens, width = shape_of(x)
    return e(op.reshape(e(op.permute_dims(x, [0, 2, 1, 3])), (batch, tokens, heads * width)))


def rounded_mask(e, p, a):
    """clip(round(p / a), 0, 1)."""
    return e(op.clip(e(op.round(e(op.divide(p, const(a))))), 0, 1))


def gsb_attention(e, p, a=(0.25, 0.5, 2.0)):
    """GSB's superposed attention: a base mask and two masks by ratio of the maximum."""
    total = e(op.multiply(rounded_mask(e, p, a[0]), const(a[0])))
    if len(a) == 1:
        return total
    top = e(op.max(p))
    for ratio, scale in zip((0.7, 0.9), a[1:], strict=True):
        mask = e(op.greater(p, e(op.multiply(top, const(ratio)))))
        total = e(op.add(total, e(op.multiply(e(op.astype(mask, "float32")), const(scale)))))
    return total


def gsb_values(e, v, a=(0.5, 0.25, 4.0)):
    """GSB's superposed values: the sign and two masked signs by ratio of the extremes."""
    total = e(op.multiply(e(op.sign(v)), const(a[0])))
    if len(a) == 1:
        return total
    top, bottom = e(op.max(v)), e(op.min(v))
    for ratio, scale in zip((0.7, 0.9), a[1:], strict=True):
        high = e(op.greater(v, e(op.multiply(top, const(ratio)))))
        low = e(op.less(v, e(op.multiply(bottom, const(ratio)))))
        mask = e(op.add(e(op.astype(high, "float32")), e(op.astype(low, "float32"))))
        group = e(op.sign(e(op.multiply(v, mask))))
        total = e(op.add(total, e(op.multiply(group, const(scale)))))
    return total


@dataclass(frozen=True)
class Attention:
    """A head layout and the options of one attention."""

    batch: int = 2
    tokens: int = 5
    heads: int = 2
    width: int = 24
    p_scales: tuple = (0.25, 0.5, 2.0)
    v_scales: tuple = (0.5, 0.25, 4.0)
    bias: bool = True
    key_sign_first: bool = True

    @property
    def shape(self):
        return (self.batch, self.tokens, self.heads * self.width)

    @property
    def inputs(self):
        return dict.fromkeys("qkv", self.shape)

    def arrays(self):
        return [quarters(*self.shape, number=number) for number in range(3)]

    def scores(self, e, q, k):
        """softmax(sign q . sign k * f) + bias."""
        q = e(op.multiply(e(op.sign(q)), const(0.5)))
        if self.key_sign_first:
            k = e(op.permute_dims(e(op.sign(k)), [0, 1, 3, 2]))
        else:
            k = e(op.sign(e(op.permute_dims(k, [0, 1, 3, 2]))))
        x = e(op.matmul(q, e(op.multiply(k, const(0.25)))))
        p = e(op.nn.softmax(e(op.multiply(x, const(self.width**-0.5))), axis=3))
        if not self.bias:
            return p
        bias = np.random.default_rng(9).random((self.heads, self.tokens, self.tokens)) / 4
        return e(op.add(p, const(bias)))

    def build(self, e, q, k, v, superpose=None):
        q, k, v = (split_heads(e, x, self.heads, self.width) for x in (q, k, v))
        p = self.scores(e, q, k)
        attention = superpose(e, p) if superpose else gsb_attention(e, p, self.p_scales)
        return merge_heads(e, e(op.matmul(attention, gsb_values(e, v, self.v_scales))))

    def module(self, superpose=None):
        return recognised(self.inputs, lambda e, *x: self.build(e, *x, superpose=superpose))
