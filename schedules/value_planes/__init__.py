"""Sign plane of a float tensor and nested masks of its extremes: two passes over the tensor.

The first pass finds the maximum and minimum of ``u = x + shift``, the second compares 32
neighbours at once: the mask of one compare is one packed word. A word that ends beyond its group
still loads 32 floats of the token's own row, from an earlier start, and shifts the word down.
"""

from gsb_tvm.dialect.errors import ModelError
from gsb_tvm.dialect.specs import Kind, ValuePlanes
from gsb_tvm.schedules import vector as v
from gsb_tvm.schedules.value_planes import formula
from gsb_tvm.schedules.value_planes.space import Parameters, rule, space
from gsb_tvm.targets import Profile

__all__ = ["Parameters", "kernel", "rule", "space"]


def kernel(spec: ValuePlanes, profile: Profile, parameters: Parameters) -> v.Expr:
    """PrimFunc of ``spec``; arguments are ``spec.inputs()`` then ``spec.outputs()``.

    Raises
    ------
    ModelError
        The spec asks for no masks, or for a mask plane as its sign plane.
    """
    if not spec.ratios:
        raise ModelError(
            "value planes: the specification has no ratios, expected at least one. "
            "Binarise the tensor without masks instead."
        )
    if spec.kind is Kind.MASK:
        raise ModelError(
            'value planes: the plane is of kind "mask", expected "sign" or "masked". '
            "Values are signs; change the specification."
        )

    def body(*tensors: v.Buffer) -> None:
        names = [name for name, _, _ in [*spec.inputs(), *spec.outputs()]]
        named = dict(zip(names, tensors, strict=True))
        formula.Planes(spec, profile, parameters, named).emit()

    return v.prim_func([*spec.inputs(), *spec.outputs()], body)
