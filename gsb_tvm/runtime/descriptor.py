"""The artefact in lines of text, for programs that load it without a JSON reader.

It holds what a caller needs before the first call, and nothing else; the metadata has the rest.
UTF-8, one item a line, words parted by one space, in this order::

    compiler 0.1.0                        version of gsb_tvm
    target llvm -mcpu=cortex-a76          for people; the rest of the line
    cpu cortex-a76                        for people
    arch aarch64
    feature asimddp 0 20 0                name, word, bit, XCR0: gsb_tvm/cpp/include/gsb_tvm/cpu.h
    model digits.onnx                     for people; the rest of the line
    alignment 64                          of memory and of a tensor's place in it, bytes
    weights gsb_weights                   symbol of the constants, which all programs share
    program gsb_part 0                    symbol of the function, batch
    memory 54272 2048 4096                bytes: of all parts; of each part beyond; of epochs
    input float32 4 1 1 8 8 image         dtype, rank, extents, name: the rest of the line
    output float32 2 1 10 logits

``feature``, ``input`` and ``output`` stand once for each; ``program``, ``memory``, ``input`` and
``output`` are a block, and there may be several blocks, of different batches. Epochs end where the
memory of all parts ends, and are zero when a call begins (:mod:`gsb_tvm.runtime.entry`).

A batch of 0 says that calls take the shapes as they stand. Any other is the first extent of every
input and output, and blocks stand in the order of their batches: a call of more images may be cut
into calls of these sizes (:mod:`gsb_tvm.runtime.batches`).

An artefact for a GPU has more to say, since its code is a list of launches
(:mod:`gsb_tvm.runtime.cuda.code`), and names sections where that of a CPU names symbols::

    gpu sm_90 9 0                         behind ``arch``: architecture, its compute capability
    weights .gsb_weights                  section of the constants
    program gsb 0                         name, batch
    code .gsb_cubin .gsb_ptx              sections of machine code, and of PTX
    memory 54272 0 0                      bytes of a call, zero before the first; no parts or epochs
    launch dense_kernel 6 1 1 256 1 1 3 input 0 constant 4096 memory 128
    result memory 256

``code`` stands behind ``program``; behind the outputs stand launches in order, with their blocks
and threads (x, y, z) and as many pointers as the number says, and where each output is after them.
A place is an input by number, or an offset in bytes into the constants or the memory of a call.

Control characters and ``%`` stand as ``%`` and two hexadecimal digits, as in RFC 3986.
"""

from collections.abc import Iterator

from gsb_tvm.runtime.barrier import SYNC_BYTES
from gsb_tvm.runtime.cuda.symbols import cubin_symbol, ptx_symbol, section_of
from gsb_tvm.runtime.elf import ALIGNMENT
from gsb_tvm.runtime.metadata import WEIGHTS, WEIGHTS_SECTION, Metadata, Place, Program
from gsb_tvm.targets.feature_bits import feature_bits
from gsb_tvm.targets.gpus import capability


def descriptor(metadata: Metadata) -> bytes:
    """Describe the artefact that ``metadata`` belongs to."""
    block = _gpu_program if metadata.target.gpu else _cpu_program
    lines = [*_library(metadata)]
    for program in metadata.programs:
        lines += block(program)
    return "".join(f"{line}\n" for line in lines).encode()


def _library(metadata: Metadata) -> Iterator[str]:
    target = metadata.target
    yield f"compiler {metadata.versions.gsb_tvm}"
    yield f"target {_escaped(target.text)}"
    yield f"cpu {_escaped(target.cpu)}"
    yield f"arch {target.arch}"
    if target.gpu:
        yield "gpu {} {} {}".format(target.gpu, *capability(target.gpu))
    for bit in feature_bits(target.arch, target.required_features):
        yield f"feature {bit.name} {bit.word} {bit.bit} {bit.xcr0}"
    yield f"model {_escaped(metadata.model.name)}"
    yield f"alignment {ALIGNMENT}"
    yield f"weights {WEIGHTS_SECTION if target.gpu else WEIGHTS}"


def _cpu_program(program: Program) -> Iterator[str]:
    memory = program.memory
    yield f"program {program.entry}_part {program.batch}"
    yield f"memory {memory.fixed_bytes} {memory.part_bytes} {SYNC_BYTES}"
    yield from _tensors(program)


def _gpu_program(program: Program) -> Iterator[str]:
    sections = (section_of(symbol(program.entry)) for symbol in (cubin_symbol, ptx_symbol))
    yield f"program {program.entry} {program.batch}"
    yield f"code {' '.join(sections)}"
    yield f"memory {program.memory.fixed_bytes} 0 0"
    yield from _tensors(program)
    for launch in program.launches:
        sizes = " ".join(map(str, (*launch.grid, *launch.block, len(launch.arguments))))
        yield " ".join((f"launch {launch.function} {sizes}", *map(_place, launch.arguments)))
    for result in program.results:
        yield f"result {_place(result)}"


def _place(place: Place) -> str:
    return f"{place.where} {place.at}"


def _tensors(program: Program) -> Iterator[str]:
    for kind, tensors in (("input", program.inputs), ("output", program.outputs)):
        for tensor in tensors:
            extents = "".join(f"{extent} " for extent in tensor.shape)
            yield f"{kind} {tensor.dtype} {len(tensor.shape)} {extents}{_escaped(tensor.name)}"


def _escaped(text: str) -> str:
    """``text`` without line ends and other control characters."""
    return "".join(
        "".join(f"%{byte:02X}" for byte in c.encode()) if c == "%" or not c.isprintable() else c
        for c in text
    )
