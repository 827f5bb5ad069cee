"""Checkpoints: what loads, and what every refusal says."""

import argparse
import pickle
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gsb_tvm.models.checkpoint import (
    CheckpointError,
    UninitializedScaleWarning,
    load_checkpoint,
    load_network,
    read_run,
)
from gsb_tvm.models.export import main
from gsb_tvm.models.fill import realistic_
from gsb_tvm.models.gsb import PRESETS, Gsb

MINI = replace(PRESETS["mini"], depth=1)


class Bomb:
    """Unpickling this would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    return realistic_(Gsb(MINI), 0).state_dict()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "gsb.pth"


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(Gsb(MINI), path)
    return str(caught.value)


def test_an_official_file_loads(state, file: Path) -> None:
    content = {
        "model": state,
        "optimizer": {"state": {}, "param_groups": [{"lr": 1e-3}]},
        "lr_scheduler": {"last_epoch": 3},
        "epoch": 299,
        "scaler": {"scale": 65536.0},
        "args": argparse.Namespace(lr=1e-3, model="deit", drop=None),
    }
    torch.save(content, file)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = load_checkpoint(Gsb(MINI), file)
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_bare_dictionary_loads(prefix: str, state, file: Path) -> None:
    torch.save({prefix + key: value for key, value in state.items()}, file)
    model = load_checkpoint(Gsb(MINI), file)
    assert torch.equal(model.state_dict()["pos_embed"], state["pos_embed"])


def test_classes_and_groups_are_the_file_s(file: Path) -> None:
    torch.save({"model": realistic_(Gsb(replace(MINI, classes=7, groups=1)), 0).state_dict()}, file)
    model = load_network(file, MINI)
    assert (model.config.classes, model.config.groups) == (7, 1)


@pytest.mark.parametrize("in_zip", [True, False])
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(in_zip: bool, file: Path) -> None:
    trace = file.with_name("trace")
    if in_zip:
        torch.save({"model": Bomb(trace)}, file)
    else:
        file.write_bytes(pickle.dumps({"model": Bomb(trace)}, protocol=2))
    assert refusal(file) == (
        f"{file}: holds objects other than tensors and plain values; reading them could run code "
        "of the file's author. Have its owner save it again with "
        'torch.save({"model": network.state_dict()}, path).'
    )
    assert not trace.exists()


def test_a_whole_network_is_refused(file: Path) -> None:
    torch.save({"model": Gsb(MINI)}, file)
    assert "holds objects other than tensors" in refusal(file)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut"])
def test_another_format_is_named(content: bytes, file: Path) -> None:
    file.write_bytes(content)
    assert refusal(file) == (
        f"{file}: not a PyTorch checkpoint, or damaged. Fetch the file again and compare its size."
    )


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_file_is_named(share: float, state, file: Path) -> None:
    torch.save({"model": state}, file)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    assert refusal(file) == (
        f"{file}: not a PyTorch checkpoint, or damaged. Fetch the file again and compare its size."
    )


def test_a_missing_file_is_named(file: Path) -> None:
    assert refusal(file) == f"{file}: no such file. Check the path."


@pytest.mark.parametrize("content", [{}, {"model": {}}, [1, 2], torch.zeros(2)])
def test_a_file_without_a_network_is_named(content: object, file: Path) -> None:
    torch.save(content, file)
    assert refusal(file) == (
        f"{file}: no network found, expected a dictionary of tensors or one under the key "
        '"model". Save it with torch.save({"model": network.state_dict()}, path).'
    )


def test_values_that_are_no_tensors_are_named(file: Path) -> None:
    torch.save({"cls_token": 3, "pos_embed": torch.zeros(1), "epoch": 1}, file)
    assert refusal(file) == (
        f"{file}: not a tensor: cls_token, epoch. Save the network's state_dict, not the network."
    )


def test_every_key_that_does_not_fit_is_named(state, file: Path) -> None:
    del state["norm.weight"], state["blocks.0.attn.clip_value3"]
    state["blocks.1.norm1.bias"] = torch.zeros(96)
    state["pos_embed"] = torch.zeros(1, 198, 384)
    state["head.bias"][3] = float("nan")
    torch.save({"model": state}, file)
    assert refusal(file) == "\n".join(
        [
            f"{file}: does not fit the network:",
            "  missing: blocks.0.attn.clip_value3 ()",
            "  missing: norm.weight (96,)",
            "  unexpected: blocks.1.norm1.bias (96,)",
            "  wrong shape: pos_embed is (1, 198, 384), expected (1, 18, 96)",
            "  not finite: head.bias holds NaN or infinity",
            "Choose the configuration the checkpoint was trained with.",
        ]
    )


def test_a_long_list_of_keys_is_counted(file: Path) -> None:
    torch.save({f"layer.{i}": torch.zeros(1) for i in range(100)}, file)
    lines = refusal(file).splitlines()
    assert len(lines) == 43
    count = 100 + len(Gsb(MINI).state_dict()) - 40
    assert lines[-2] == f"  ... and {count} more"


def test_a_scale_of_exactly_one_is_warned_about(state, file: Path) -> None:
    state["blocks.0.attn.clip_attn2"].fill_(1.0)
    state["head.input_clip_val"].fill_(1.0)
    torch.save({"model": state}, file)
    with pytest.warns(UninitializedScaleWarning) as caught:
        load_checkpoint(Gsb(MINI), file)
    assert [str(w.message) for w in caught] == [
        f"{file}: scales exactly 1, which official training sets anew on its first forward: "
        "blocks.0.attn.clip_attn2, head.input_clip_val. Train further, or calibrate the network."
    ]


def test_a_network_is_not_the_state_of_a_run(state, file: Path) -> None:
    torch.save({"model": state, "epoch": 3}, file)
    with pytest.raises(CheckpointError) as caught:
        read_run(file)
    assert str(caught.value) == (
        f"{file}: not the state of a training run, without teacher, optimizer, generator, config, "
        "recipe, stage, accuracies. Resume from a file written by --save."
    )


def test_the_export_command_reads_checkpoints(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = file.with_name("out.onnx")
    torch.save({"model": realistic_(Gsb(PRESETS["mini"]), 0).state_dict()}, file)
    assert main(["--preset", "mini", "--checkpoint", str(file), str(out)]) == 0
    assert out.exists()
    missing = file.with_name("none.pth")
    capsys.readouterr()
    assert main(["--checkpoint", str(missing), str(out)]) == 3
    assert capsys.readouterr().err == f"error: {missing}: no such file. Check the path.\n"
