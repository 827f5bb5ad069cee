"""Sources of a C library: the templates of ``gsb_tvm/cpp/library``, filled in for one model."""

from collections.abc import Mapping, Sequence
from string import Template

from gsb_tvm.dialect.errors import UsageError
from gsb_tvm.runtime.barrier import SYNC_BYTES
from gsb_tvm.runtime.c_names import Argument, arguments
from gsb_tvm.runtime.cpp_folder import CPP
from gsb_tvm.runtime.metadata import Metadata
from gsb_tvm.targets.feature_bits import feature_bits
from gsb_tvm.targets.permission import tile_features

_MOST_BYTES = 2**31 - 1  # of an arena: an int in the sources
_PROCESSORS = {"x86_64": "x86_64|AMD64|amd64", "aarch64": "aarch64|arm64|ARM64"}
_PRINTF = {"float": ("%.9g", "double"), "double": ("%.17g", "double")}
_TILES = """\
  if (gsb_cpu_allow_tiles())
    return @{name}_fail(@{NAME}_ERROR_CPU,
                        "@{name} uses AMX, which Linux refuses this process. Allow it arch_prctl, "
                        "or compile the model with -mattr=-amx-int8,-amx-tile.");
"""


class _Template(Template):
    """A template in which ``@{word}`` is replaced, so that ``$`` stays what CMake means by it."""

    delimiter = "@"


def fill(template: str, values: Mapping[str, str]) -> str:
    """Contents of the file ``library/<template>.in`` with ``values`` filled in."""
    text = (CPP / "library" / f"{template}.in").read_text(encoding="utf-8")
    return _Template(text).substitute(values)


def values(metadata: Metadata, name: str) -> dict[str, str]:
    """What the templates say about a model whose library is called ``name``.

    Raises
    ------
    UsageError
        A tensor cannot be a parameter in C, or a call needs more memory than fits an int.
    """
    inputs, outputs = arguments(metadata.program.inputs, metadata.program.outputs)
    base = {"name": name, "NAME": name.upper(), "model": _plain(metadata.model.name)}
    about = base | _target(metadata, base) | _memory(metadata) | _calls(inputs, outputs)
    return about | _declarations(name, inputs, outputs) | _example(name, inputs, outputs)


def _target(metadata: Metadata, base: Mapping[str, str]) -> dict[str, str]:
    target = metadata.target
    bits = feature_bits(target.arch, target.required_features)
    uses_tiles = bool(tile_features(target.required_features))
    return {
        "version": metadata.versions.gsb_tvm,
        "cpu": target.cpu,
        "triple": target.triple,
        "arch": target.arch,
        "processors": _PROCESSORS[target.arch],
        "features": "".join(
            f'    {{"{bit.name}", {bit.word}, {bit.bit}, {bit.xcr0}u}},\n' for bit in bits
        ),
        "tiles": _Template(_TILES).substitute(base) if uses_tiles else "",
    }


def _memory(metadata: Metadata) -> dict[str, str]:
    memory = metadata.program.memory
    if memory.total(1) > _MOST_BYTES:
        raise UsageError(
            f"a call needs {memory.total(1)} bytes of memory, and a C library has room for "
            f"{_MOST_BYTES}. Compile the model for a smaller batch."
        )
    return {
        "arena_bytes": str(memory.total(1)),
        "thread_bytes": str(memory.part_bytes),
        "fixed_bytes": str(memory.fixed_bytes),
        "sync_bytes": str(SYNC_BYTES),
    }


def _calls(inputs: Sequence[Argument], outputs: Sequence[Argument]) -> dict[str, str]:
    """Lists of parameters and of what is passed for them."""
    types = ["const void*"] * len(inputs) + ["void*"] * len(outputs)
    given = [f"given->inputs[{i}]" for i in range(len(inputs))]
    given += [f"given->outputs[{i}]" for i in range(len(outputs))]
    names = [argument.name for argument in (*inputs, *outputs)]
    params = [f"const {a.c_type}* {a.name}" for a in inputs]
    params += [f"{a.c_type}* {a.name}" for a in outputs]
    return {
        "num_inputs": str(len(inputs)),
        "num_outputs": str(len(outputs)),
        "call": ", ".join(names),
        "params": ", ".join(params),
        "input_names": ", ".join(names[: len(inputs)]),
        "output_names": ", ".join(names[len(inputs) :]),
        "part_types": ", ".join(types),
        "part_values": ", ".join(given),
        "span_values": ", ".join(f"{name}.data()" for name in names),
    }


def _declarations(
    name: str, inputs: Sequence[Argument], outputs: Sequence[Argument]
) -> dict[str, str]:
    """Sizes and descriptions of tensors."""
    sizes = "".join(
        f'/* {kind} "{_plain(a.tensor.name)}": {a.tensor.dtype} {list(a.tensor.shape)}. */\n'
        f"#define {_count(name, a)} ((size_t){a.count})\n"
        for kind, group in (("Input", inputs), ("Output", outputs))
        for a in group
    )
    spans = [f"Span<const {a.c_type}, {_count(name, a)}> {a.name}" for a in inputs]
    spans += [f"Span<{a.c_type}, {_count(name, a)}> {a.name}" for a in outputs]
    described = _described(name, "inputs", inputs) + _described(name, "outputs", outputs)
    return {"tensors": sizes, "spans": ", ".join(spans), "descriptions": described}


def _described(name: str, kind: str, group: Sequence[Argument]) -> str:
    """Definition of the array of descriptions, in C."""
    shapes, rows = [], []
    for i, argument in enumerate(group):
        tensor = argument.tensor
        extents = ", ".join(map(str, tensor.shape)) or "1"  # C has no array without elements
        shapes.append(f"static const int64_t {kind}_shape{i}[] = {{{extents}}};\n")
        fields = (
            _string(tensor.name),
            _string(tensor.dtype),
            f"{argument.count} * sizeof({argument.c_type})",
            str(len(tensor.shape)),
            f"{kind}_shape{i}",
        )
        rows.append(f"    {{{', '.join(fields)}}},\n")
    array = f"const {name}_tensor {name}_{kind}[{len(group)}] = {{\n{''.join(rows)}}};\n"
    return f"{''.join(shapes)}{array}"


def _example(name: str, inputs: Sequence[Argument], outputs: Sequence[Argument]) -> dict[str, str]:
    """Tensors of a program, and the printing of its outputs."""
    members = [f"  {a.c_type} {a.name}[{_count(name, a)}];\n" for a in (*inputs, *outputs)]
    # Members, whose names are nothing to the variables and functions of a program.
    storage = f"static struct {{\n{''.join(members)}}} tensors;\n"
    prints = []
    for a in outputs:
        form, cast = _PRINTF.get(a.c_type, ("%lld", "long long"))
        prints.append(
            f"  for (size_t i = 0; i < {_count(name, a)}; ++i)\n"
            f'    printf("{form}\\n", ({cast})tensors.{a.name}[i]);\n'
        )
    stored = [[f"tensors.{a.name}" for a in group] for group in (inputs, outputs)]
    return {
        "storage": storage,
        "stored_inputs": ", ".join(stored[0]),
        "stored_outputs": ", ".join(stored[1]),
        "print": "".join(prints),
    }


def _count(name: str, argument: Argument) -> str:
    """Macro with the number of elements."""
    return f"{name}_{argument.name}_count".upper()


def _plain(text: str) -> str:
    """``text`` as it may stand in a comment or a quoted string of any of the files."""
    return "".join(c if c.isalnum() or c in " ._-+()[]:/@" else "_" for c in text)


def _string(text: str) -> str:
    """A C string literal: bytes of UTF-8, what is not plain ASCII in octal."""
    escaped = "".join(
        chr(b) if 32 <= b < 127 and chr(b) not in '"\\?' else f"\\{b:03o}" for b in text.encode()
    )
    return f'"{escaped}"'
