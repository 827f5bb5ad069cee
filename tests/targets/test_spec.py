import pytest
from hypothesis import given
from hypothesis import strategies as st

from gsb_tvm.dialect.errors import ExitCode, TargetError
from gsb_tvm.targets.spec import nearest, parse, shown, take_target


@pytest.mark.parametrize(
    "spec",
    [
        "llvm -mcpu=cortex-a72",
        "  llvm   -mcpu=cortex-a72 ",
        "llvm -mcpu cortex-a72",
        ["llvm", "-mcpu=cortex-a72"],
        ["llvm", "-mcpu", "cortex-a72"],
        ["llvm -mcpu=cortex-a72"],
        '{"kind": "llvm", "mcpu": "cortex-a72"}',
        ['{"kind":', '"llvm",', '"mcpu": "cortex-a72"}'],
        {"kind": "llvm", "mcpu": "cortex-a72"},
        {
            "kind": "llvm",
            "tag": "",
            "keys": ["cpu"],
            "mcpu": "cortex-a72",
            "feature.has_sve": False,
        },
    ],
)
def test_every_way_of_writing_reads_alike(spec):
    got = parse(spec)
    assert (got.head, got.mcpu, got.mtriple, got.mattr, got.num_cores) == (
        "llvm",
        "cortex-a72",
        "",
        (),
        None,
    )


def test_reads_every_option():
    got = parse("llvm -mtriple=x86_64-linux-gnu -mcpu=haswell -mattr=+fma,-avx2 -num-cores=3")
    assert (got.mtriple, got.mattr, got.num_cores) == ("x86_64-linux-gnu", ("+fma", "-avx2"), 3)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "the target is empty. Write for example --target llvm -mcpu=haswell."),
        (
            "-mcpu=haswell",
            'target "-mcpu=haswell": the first word must be a kind, a tag or "native", '
            'not an option. Write "llvm -mcpu=haswell".',
        ),
        (
            "llvm -mcp=haswell",
            'target "llvm -mcp=haswell": unknown option "-mcp". '
            'Nearest names: "-mcpu", "-mtriple", "-arch".',
        ),
        (
            "llvm -mcpu=a -mcpu=b",
            'target "llvm -mcpu=a -mcpu=b": -mcpu is given twice. Give it once.',
        ),
        ("llvm -mcpu=", 'target "llvm -mcpu=": -mcpu has no value. Write -mcpu=VALUE.'),
        ("llvm -mcpu", 'target "llvm -mcpu": -mcpu has no value. Write -mcpu=VALUE.'),
        (
            "llvm -mattr=fma",
            'target "llvm -mattr=fma": feature "fma" has no sign. Write +name to add a feature, '
            "-name to remove it, separated by commas.",
        ),
        (
            "llvm -mattr=+fma,-fma",
            'target "llvm -mattr=+fma,-fma": feature "fma" is both added and removed. '
            "Write it once.",
        ),
        (
            "llvm -num-cores=two",
            'target "llvm -num-cores=two": -num-cores is "two", expected a whole number.',
        ),
        (
            "llvm -num-cores=0",
            'target "llvm -num-cores=0": num-cores is 0, expected 1 to 4096.',
        ),
        (
            '{"kind": "llvm", "mcpu": }',
            'target "{"kind": "llvm", "mcpu": }": not valid JSON '
            "(Expecting value: line 1 column 26 (char 25)).",
        ),
        (
            '{"kind": "llvm", "cpu": "haswell"}',
            'target "{"kind": "llvm", "cpu": "haswell"}": unknown key "cpu". '
            'Nearest names: "mcpu", "arch", "mtriple".',
        ),
        ('{"mcpu": "haswell"}', 'target "{"mcpu": "haswell"}": no kind is given. '
         'Add "kind": "llvm".'),
        (
            '{"kind": "llvm", "mcpu": 7}',
            'target "{"kind": "llvm", "mcpu": 7}": mcpu is 7, expected a string.',
        ),
        (
            '{"kind": "llvm", "mcpu": ""}',
            'target "{"kind": "llvm", "mcpu": ""}": mcpu is empty. Leave it out or name one.',
        ),
        (
            '{"kind": "llvm", "mattr": [1]}',
            'target "{"kind": "llvm", "mattr": [1]}": mattr is [1], expected a list of strings.',
        ),
        (
            '{"kind": "llvm", "num-cores": true}',
            'target "{"kind": "llvm", "num-cores": true}": num-cores is True, expected 1 to 4096.',
        ),
        (
            '{"kind": "llvm", "tag": "arm/rasp4b64"}',
            'target "{"kind": "llvm", "tag": "arm/rasp4b64"}": both kind and tag are given. '
            "Give one of them.",
        ),
    ],
)  # fmt: skip
def test_says_what_is_wrong(spec, message):
    with pytest.raises(TargetError) as caught:
        parse(spec)
    assert str(caught.value) == message
    assert caught.value.exit_code == ExitCode.USAGE


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text):
    try:
        said = shown(parse(text).head)
    except TargetError as err:
        said = str(err)
    assert said.isprintable()
    assert said


@given(
    st.dictionaries(
        st.sampled_from(["kind", "tag", "mcpu", "mtriple", "mattr", "num-cores", "x"]),
        st.one_of(st.none(), st.integers(), st.text(max_size=5), st.lists(st.text(max_size=3))),
    )
)
def test_any_mapping_is_read_or_refused(config):
    try:
        said = parse(config).head
    except TargetError as err:
        said = str(err)
    assert said


def test_nearest_ranks_swapped_digits_first_and_ignores_case():
    known = ["cortex-a77", "cortex-a72", "cortex-a53", "haswell"]
    assert nearest("cortex-a27", known) == '"cortex-a72", "cortex-a77", "cortex-a53"'
    assert nearest("HASWELL", known).startswith('"haswell"')
    assert nearest("hasswell", ["llvm", "llvm -mcpu=haswell"]).startswith('"llvm -mcpu=haswell"')


def test_shown_escapes_and_cuts():
    assert shown("a\nb\x1b[1m") == r"a\nb\x1b[1m"
    assert shown("x" * 1000) == "x" * 200 + "..."


@pytest.mark.parametrize(
    ("argv", "target", "rest"),
    [
        ("m.onnx -o out.so", None, "m.onnx -o out.so"),
        ("--target native m.onnx", "native", "m.onnx"),
        ("m.onnx --target llvm -mcpu=haswell -o o", "llvm -mcpu=haswell", "m.onnx -o o"),
        ("--target llvm -mcpu haswell m.onnx", "llvm -mcpu haswell", "m.onnx"),
        ("--target=llvm -mcpu=haswell -num-cores=2 m", "llvm -mcpu=haswell -num-cores=2", "m"),
        ("--target llvm -mcp=x --strict", "llvm -mcp=x", "--strict"),
        ("--target llvm -o out", "llvm", "-o out"),
        ("--target", "", ""),
        ("--target llvm -mcpu", "llvm -mcpu", ""),
        ("-- --target llvm", None, "-- --target llvm"),
    ],
)
def test_take_target(argv, target, rest):
    got, others = take_target(argv.split())
    assert got == (None if target is None else target.split())
    assert others == rest.split()


def test_take_target_keeps_a_quoted_target_whole():
    assert take_target(["--target", "llvm -mcpu=haswell", "m"]) == (["llvm -mcpu=haswell"], ["m"])
