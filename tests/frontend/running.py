"""Run imported modules and their ONNX originals."""

import numpy as np
import onnxruntime
import tvm
from tvm import relax
from tvm.target import Target


def run_relax(module, *arrays):
    """Outputs of ``main`` as a list of arrays; compiled for compile time, not for speed."""
    with tvm.transform.PassContext(opt_level=0):
        built = tvm.compile(module, target=Target({"kind": "llvm", "opt-level": 0}))
    machine = relax.VirtualMachine(built, tvm.cpu())
    result = machine["main"](*(tvm.runtime.tensor(np.ascontiguousarray(a)) for a in arrays))
    results = [result] if isinstance(result, tvm.runtime.Tensor) else list(result)
    return [value.numpy() for value in results]


def run_onnx(model, *arrays):
    """Outputs of ONNX Runtime, without its optimiser, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [value.name for value in session.get_inputs()]
    return session.run(None, dict(zip(names, arrays, strict=True)))


def operators(module):
    """Names of the operators of ``main`` in order, without the prefix ``relax.``."""
    (block,) = module["main"].body.blocks
    return [binding.value.op.name.removeprefix("relax.") for binding in block.bindings]


def constants(module, operator):
    """Constant operands of every call of an operator, in order."""
    (block,) = module["main"].body.blocks
    return [
        argument.value.numpy()
        for binding in block.bindings
        if binding.value.op.name == f"relax.{operator}"
        for argument in binding.value.args
        if isinstance(argument, tvm.ir.GenericConst)
    ]
