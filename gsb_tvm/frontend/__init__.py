"""ONNX in, Relax out: the only room that knows model formats.

`load` reads and checks a file, fixes its shapes, cancels straight-through residue, folds weights
and returns a Relax module in normal form, so that a pass meets one spelling of each construct,
whichever exporter wrote it. The stages, one file each: ``reading`` and ``external`` (bytes),
``guards`` (refusals), ``shapes`` (static types, shape arithmetic), ``scatter``,
``straight_through``, ``folding``, ``normal_forms`` (with ``index_forms`` and ``window_forms``),
``compact``, ``to_relax``.

What a pass may expect
----------------------
The module has one function ``main`` with one dataflow block; its parameters are the model's inputs
in order. All shapes are static, all floats float32. There is no ``call_tir``, no index arithmetic,
no shape computation, no dead binding, and no two bindings with the same operator, operands and
attributes (equal values are one variable, so a pass compares variables). A variable is named after
the module it came from where the file tells (``blocks_0_attn_qkv_MatMul``).

Constants are ``tvm.ir.GenericConst``. One operand of an elementwise operator that is constant
stands **second** in add, multiply and the comparisons (a comparison is mirrored); subtract and
divide keep their order. Such a constant has its smallest shape: a single element is a scalar
``()``, leading axes along which it repeats itself are gone, inner ones are 1, the last axis keeps
its length. Broadcast it to what you need: a bias is ``(C,)``, a shift of heads ``(H, 1, d)`` or,
where all heads agree, ``(d,)``; a convolution's bias ``(C, 1, 1)``.

===================================  =============================================================
construct                            Relax
===================================  =============================================================
patch embedding                      nn.conv2d(x, const) · add(const (D,1,1)) · reshape ·
                                     permute_dims · concat((const, const, x), 1) · add(const)
layer norm, decomposed               mean(axis=[-1 counted from the front], keepdims) · subtract ·
                                     multiply(d, d) · mean · add(const eps), absent in some forms ·
                                     sqrt · divide(d, root) · multiply(const) · add(const)
layer norm, fused                    nn.layer_norm(x, const, const, axes, epsilon)
binary or float linear               matmul(x, const (K, N)) · add(const (N,)); Gemm likewise
binary weight                        a const of two levels (or three, with 0) a column or in all;
                                     never a sign of a constant
signed activation                    add(shift) · sign · multiply(const ())
qkv                                  reshape (B,N,3,H,d) · permute_dims [2,0,3,1,4] · 3x
                                     (strided_slice on axis 0 · squeeze [0]) · add(shift)
scores                               permute_dims [0,1,3,2] of k · matmul · multiply(const ()) ·
                                     nn.softmax(axis=3) · add(const)
masks of a whole tensor              max(axis=None, keepdims=False) · multiply(const ()) ·
                                     greater(x, t) · astype float32; min · multiply · less · astype;
                                     one max and one min for both thresholds
rounding activation                  divide(x, const ()) · round (half to even) ·
                                     clip(x, low, high) · multiply(const ())
value groups                         multiply(v, mask) · sign, each times const (), added left to
                                     right as in the graph
GELU                                 multiply(x, 0.5) · divide(x, 1.4142135) · erf · add(1) ·
                                     multiply(half, it)
token of a head                      strided_slice · squeeze
===================================  =============================================================

Sign activations keep their spelling, because they differ at zero: ``sign`` (0 gives 0);
``where(x >= 0, 1, -1)``, also for QONNX BipolarQuant, as where(greater_equal(x, 0), s, -s);
``astype(x > 0) * 2 - 1``; heaviside as nested ``where``; and
``round(clip((x + 1) / 2, 0, 1)) * 2 - 1``. The two straight-through spellings arrive as ``sign``
alone. NaN: sign(NaN) is 0, as in torch, and clip(NaN) is a bound; ONNX Runtime gives NaN for both.
Masked assignment (torch.export's NonZero and ScatterND) is ``where(mask, const, x)``.

Further: Clip with one bound is maximum or minimum; Split is strided slices; batch norm is
multiply · add with one constant a channel; PRelu and LeakyRelu are where(x < 0, x·slope, x); x² is
multiply(x, x); Conv has no bias operand; L1 and L2 norms are abs or multiply, sum, sqrt;
GlobalAveragePool is mean; Gather with a live or a long index is take; a cast choice between two
constants is ``where`` of cast constants; instance norm is spelt out; nearest Resize by whole
factors is reshape · broadcast_to · reshape; Pad is concat with constants.

Exactness: elementwise steps on constants are folded in float32 in the graph's order; sums, means
and norms of weights and scalar arithmetic on them in float64, rounded once where they meet a
float32 tensor.
"""

from gsb_tvm.frontend.importer import ImportedModel, Port, load

__all__ = ["ImportedModel", "Port", "load"]
