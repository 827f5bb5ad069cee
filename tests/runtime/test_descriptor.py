import msgspec

from gsb_tvm.dialect.parts import MOST_PARTS
from gsb_tvm.runtime import metadata as meta
from gsb_tvm.runtime.build import Artefact
from gsb_tvm.runtime.descriptor import descriptor
from gsb_tvm.targets import resolve


def test_says_what_a_call_needs(popcount, a72) -> None:
    metadata = popcount.claiming(a72, memory=meta.Memory(54272, 2048))
    version = metadata.versions.gsb_tvm
    assert descriptor(metadata).decode() == (
        f"compiler {version}\n"
        f"target {a72.target_string}\n"
        "cpu cortex-a72\n"
        "arch aarch64\n"
        "feature asimd 0 1 0\n"
        "feature fp 0 0 0\n"
        "model model.onnx\n"
        "alignment 64\n"
        "weights gsb_weights\n"
        "program gsb_part 0\n"
        f"memory 54272 2048 {64 * MOST_PARTS}\n"
        "input uint32 2 16 8 x\n"
        "output float32 2 16 10 probabilities\n"
    )


def test_tensors_without_extents_and_of_every_kind(kinds, native) -> None:
    lines = descriptor(kinds.metadata(native)).decode().splitlines()
    tensors = [line for line in lines if line.startswith(("input", "output"))]
    assert tensors == [
        "input bool 1 4 b",
        "input float16 1 4 h",
        "input float32 0 z",
        "input int8 1 4 i",
        "output float32 1 4 y",
        "output bool 1 4 k",
        "output int8 1 4 q",
        "output float32 0 w",
    ]


def test_names_stay_on_their_line(popcount, native) -> None:
    metadata = popcount.metadata(native)
    (x,) = metadata.program.inputs
    evil = msgspec.structs.replace(
        popcount.claiming(native, inputs=(msgspec.structs.replace(x, name=" a\r\tb\u2028c\x7f "),)),
        model=msgspec.structs.replace(metadata.model, name="é\nweights  100%.onnx"),
    )
    lines = descriptor(evil).decode().split("\n")
    assert "model é%0Aweights  100%25.onnx" in lines
    assert "input uint32 2 16 8  a%0D%09b%E2%80%A8c%7F " in lines
    assert len(lines) == len(descriptor(metadata).decode().split("\n"))


def test_features_come_with_their_places(popcount) -> None:
    profile = resolve("llvm -mcpu=sapphirerapids")
    lines = descriptor(popcount.metadata(profile)).decode().splitlines()
    features = [line.split()[1] for line in lines if line.startswith("feature ")]
    assert features == sorted(profile.required_features)
    assert "feature amx_int8 18 25 393216" in lines


def test_it_stands_behind_the_metadata(artefact: Artefact) -> None:
    metadata = meta.read(artefact.path)
    text = msgspec.json.encode(metadata, order="deterministic")
    assert text + descriptor(metadata) in artefact.path.read_bytes()


def test_each_program_is_a_block(popcount, native) -> None:
    metadata = popcount.metadata(native)
    program = metadata.program
    two = [
        msgspec.structs.replace(program, batch=batch, entry=f"gsb_b{batch}") for batch in (16, 32)
    ]
    lines = descriptor(msgspec.structs.replace(metadata, programs=tuple(two))).decode().splitlines()
    kinds = [line.split()[0] for line in lines]
    block = ["program", "memory", "input", "output"]
    assert kinds[kinds.index("program") :] == block * 2
    assert [line for line in lines if line.startswith("program")] == [
        "program gsb_b16_part 16",
        "program gsb_b32_part 32",
    ]


def test_what_a_gpu_does(popcount) -> None:
    profile = resolve("cuda -arch=sm_90")
    place = meta.Place
    arguments = (place("input", 0), place("constant", 64), place("memory", 512))
    launches = (
        meta.Launch("a_kernel", (6, 2, 1), (32, 4, 1), arguments, 0),
        meta.Launch("b_kernel", (1, 1, 1), (256, 1, 1), (), 0),
    )
    metadata = popcount.claiming(
        profile,
        memory=meta.Memory(20032, 0),
        launches=launches,
        results=(place("memory", 19392),),
    )
    lines = descriptor(metadata).decode().splitlines()
    assert lines[3:5] == ["arch x86_64", "gpu sm_90 9 0"]
    assert lines[lines.index("alignment 64") + 1 :] == [
        "weights .gsb_weights",
        "program gsb 0",
        "code .gsb_cubin .gsb_ptx",
        "memory 20032 0 0",
        "input uint32 2 16 8 x",
        "output float32 2 16 10 probabilities",
        "launch a_kernel 6 2 1 32 4 1 3 input 0 constant 64 memory 512",
        "launch b_kernel 1 1 1 256 1 1 0",
        "result memory 19392",
    ]
