"""Training: losses, stages, resuming, and the command."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from gsb_tvm.dialect.errors import OutputError, UsageError
from gsb_tvm.models import datasets, recipe
from gsb_tvm.models.checkpoint import CheckpointError
from gsb_tvm.models.gsb import GsbConfig
from gsb_tvm.models.recipe import Progress, Recipe
from gsb_tvm.models.run import Run, finish, finish_stage, load_run, next_stage, save_run, start
from gsb_tvm.models.train import main

CONFIG = GsbConfig(
    image_size=8,
    channels=1,
    patch_size=4,
    width=16,
    depth=1,
    heads=2,
    mlp_ratio=2.0,
    classes=3,
)
SHORT = Recipe(epochs=(2, 1, 2), batch=8, jitter=0.5, seed=5)
FIT = ["fit", "--width", "16", "--depth", "1", "--heads", "2", "--mlp-ratio", "2"]


def ignore(_at: Progress) -> None:
    """Observe nothing."""


@pytest.fixture
def data() -> datasets.Dataset:
    """Return 20 images whose class is the brightest third."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 20)
    images = rng.standard_normal((20, 1, 8, 8))
    for image, label in zip(images, labels, strict=True):
        image[:, 3 * label : 3 * label + 2] += 3
    x, y = torch.from_numpy(images.astype(np.float32)), torch.from_numpy(labels)
    return datasets.Dataset(x[:16], y[:16], x[16:], y[16:])


def test_distillation_is_half_truth_half_the_teacher_s_choice() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((2, 4, 3))
    labels, taught = np.array([0, 1, 2, 0]), np.array([0, 2, 2, 1])

    def cross_entropy(logits: np.ndarray, classes: np.ndarray) -> float:
        picked = logits[np.arange(4), classes]
        return float(np.mean(np.log(np.exp(logits).sum(1)) - picked))

    outputs = torch.from_numpy(first), torch.from_numpy(second)
    loss = recipe.distillation_loss(outputs, torch.from_numpy(labels), torch.from_numpy(taught))
    expected = 0.5 * cross_entropy(first, labels) + 0.5 * cross_entropy(second, taught)
    np.testing.assert_allclose(loss.item(), expected, rtol=1e-12)


def test_one_head_answers_both_questions() -> None:
    logits = torch.randn(4, 3, generator=torch.manual_seed(0))
    labels = torch.tensor([0, 1, 2, 0])
    both = recipe.distillation_loss((logits, logits), labels, labels)
    assert recipe.distillation_loss(logits, labels, labels) == both


def test_the_learning_rate_falls_by_half_a_cosine() -> None:
    rate = recipe.cosine(Recipe(learning_rate=1e-3, final_learning_rate=1e-5), 10)
    assert [rate(0), rate(5), rate(10)] == pytest.approx([1e-3, 5.05e-4, 1e-5])


def test_only_matrices_decay(data: datasets.Dataset) -> None:
    run = start(CONFIG, SHORT, data)
    decayed, kept = run.optimizer.param_groups
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.05, 0.0)
    assert len(decayed["params"]) == 4 + 1 + 2  # linears, patch embedding, heads
    assert len(kept["params"]) + 7 == len(list(run.model.parameters()))


def test_jitter_of_strength_zero_and_of_a_flat_image_changes_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(3, 1, 8, 8, generator=generator)
    assert recipe.jittered(images, 0.0, generator) is images
    flat = torch.full((2, 1, 8, 8), 0.25)
    torch.testing.assert_close(recipe.jittered(flat, 1.0, generator), flat)
    assert (recipe.jittered(images, 1.0, generator) - images).abs().max() > 0.1


def test_a_short_run_goes_through_all_stages(data: datasets.Dataset) -> None:
    seen: list[Progress] = []
    run = finish(start(CONFIG, SHORT, data), data, seen.append)
    assert [(p.stage, p.epoch, p.step) for p in seen] == [
        (stage, epoch, step)
        for stage, epochs in (("teacher", 2), ("stage1", 1), ("stage2", 2))
        for epoch in range(epochs)
        for step in (1, 2)
    ]
    assert all(np.isfinite(p.loss) for p in seen)
    assert set(run.accuracies) == {"teacher", "stage1", "stage2"}
    assert run.model.config == CONFIG
    assert run.teacher is not None
    assert run.teacher.config == CONFIG.without_quantizers()


def test_a_stage_starts_from_the_parameters_of_the_stage_before(data: datasets.Dataset) -> None:
    teacher = finish_stage(start(CONFIG, SHORT, data), data, ignore)
    before = {key: value.clone() for key, value in teacher.model.state_dict().items()}
    first = next_stage(teacher, data)
    state = first.model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in before.items())
    assert first.teacher is teacher.model
    ablation = next_stage(first, data, replace(CONFIG, groups=1))
    assert ablation.model.config.groups == 1
    assert ablation.model.state_dict()["blocks.0.attn.qkv.input_clip_val"] != 1


@pytest.mark.parametrize("stop_after", [1, 3, 4])
def test_a_resumed_run_ends_as_an_uninterrupted_one(
    stop_after: int, data: datasets.Dataset, tmp_path: Path
) -> None:
    whole = finish(start(CONFIG, SHORT, data), data, ignore)
    file = tmp_path / "run.pt"
    epochs = 0

    def stop(at: Progress) -> None:
        nonlocal epochs
        epochs += at.step == 1
        if epochs > stop_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finish(start(CONFIG, SHORT, data), data, stop, file)
    resumed = finish(load_run(file), data, ignore, file)
    assert resumed.accuracies == whole.accuracies
    expected = whole.model.state_dict()
    assert all(torch.equal(expected[k], v) for k, v in resumed.model.state_dict().items())
    assert not file.with_name("run.pt.part").exists()


def test_a_file_whose_parts_do_not_fit_is_refused(data: datasets.Dataset, tmp_path: Path) -> None:
    file = tmp_path / "run.pt"
    run = start(CONFIG, SHORT, data)
    save_run(replace_config(run), file)
    with pytest.raises(CheckpointError) as caught:
        load_run(file)
    assert str(caught.value) == (
        f"{file}: its network and its configuration do not fit together. Start the run again."
    )


def replace_config(run: Run) -> Run:
    return replace(run, config=replace(CONFIG, width=32))


def test_a_folder_that_is_missing_is_named(data: datasets.Dataset, tmp_path: Path) -> None:
    file = tmp_path / "no" / "run.pt"
    with pytest.raises(OutputError) as caught:
        save_run(start(CONFIG, SHORT, data), file)
    assert str(caught.value) == (
        f"{file}: cannot write the checkpoint. Choose a folder that can be written."
    )


def save_npz(path: Path, count: int = 15, **changes: np.ndarray) -> Path:
    rng = np.random.default_rng(0)
    arrays = {
        "images": rng.integers(0, 256, (count, 8, 8)).astype(np.uint8),
        "labels": np.arange(count) % 3,
    }
    np.savez(path, **(arrays | changes))
    return path


def test_an_npz_is_scaled_and_split_the_same_way_each_time(tmp_path: Path) -> None:
    path = save_npz(tmp_path / "data.npz")
    one, two = datasets.load(str(path)), datasets.load(str(path))
    assert one.train_images.shape == (12, 1, 8, 8)
    assert one.test_images.shape == (3, 1, 8, 8)
    assert one.classes == 3
    assert -1 <= one.train_images.min() < -0.9
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"labels": np.zeros(3, int)},
            "images have shape (15, 1, 8, 8) and labels (3,), expected (n, channels, size, size) "
            "and (n,). Save square images with one label each.",
        ),
        (
            {"labels": np.zeros(15)},
            "labels are float64, expected integers from 0. Number the classes.",
        ),
        (
            {"labels": np.array([None] * 15)},
            "cannot be read as .npz. Save it with numpy.savez(path, images=..., labels=...), "
            "without object arrays.",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_named(changes, text: str, tmp_path: Path) -> None:
    path = save_npz(tmp_path / "data.npz", **changes)
    with pytest.raises(UsageError) as caught:
        datasets.load(str(path))
    assert str(caught.value) == f"{path}: {text}"


def test_a_file_without_images_is_named(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, labels=np.zeros(3, int))
    with pytest.raises(UsageError) as caught:
        datasets.load(str(path))
    assert str(caught.value) == (
        f"{path}: the array images is missing, expected images and labels. "
        "Save it with numpy.savez(path, images=..., labels=...)."
    )


def test_the_command_trains_saves_and_exports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = save_npz(tmp_path / "data.npz")
    out, state = tmp_path / "m.onnx", tmp_path / "run.pt"
    options = ["--data", str(data), "--patch-size", "4", "--epochs", "1", "1", "1"]
    written = ["--save", str(state), "--export", str(out), "--groups", "1"]
    assert main([*FIT, *options, *written]) == 0
    onnx.checker.check_model(onnx.load(out), full_check=True)
    assert load_run(state).config.groups == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["teacher", "stage1", "stage2", f"{out}:"]
    assert main([*FIT, "--data", str(data), "--resume", str(state)]) == 0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--heads", "3"], "width 16 is not a multiple of heads 3. Change --heads or --width."),
        (["--patch-size", "3"], "image_size 8 is not a multiple of patch_size 3. "
         "Change --patch-size."),
    ],
)  # fmt: skip
def test_a_network_that_does_not_fit_exits_2(
    options: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = save_npz(tmp_path / "data.npz")
    assert main([*FIT, "--data", str(data), *options]) == 2
    assert capsys.readouterr().err == f"error: the network does not fit: {text}\n"


def test_resuming_from_nothing_exits_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, missing = save_npz(tmp_path / "data.npz"), tmp_path / "run.pt"
    assert main([*FIT, "--data", str(data), "--resume", str(missing)]) == 3
    assert capsys.readouterr().err == f"error: {missing}: no such file. Check the path.\n"


def test_resuming_with_other_images_exits_2(
    data: datasets.Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state, other = tmp_path / "run.pt", tmp_path / "data.npz"
    save_run(start(CONFIG, SHORT, data), state)
    save_npz(other, images=np.zeros((15, 3, 8, 8)))
    assert main([*FIT, "--data", str(other), "--resume", str(state)]) == 2
    assert capsys.readouterr().err == (
        f"error: {other}: channels, image size and classes are (3, 8, 3), but the saved network "
        "was trained on (1, 8, 3). Resume with the same --data.\n"
    )


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("epochs", (1, -1, 1), "epochs is (1, -1, 1). Change --epochs."),
        ("learning_rate", 0.0, "learning_rate is 0.0. Change --learning-rate."),
        ("batch", 0, "batch is 0. Change --batch."),
        ("label_smoothing", 1.5, "label_smoothing is 1.5. Change --label-smoothing."),
        ("jitter", float("nan"), "jitter is nan. Change --jitter."),
    ],
)
def test_an_impossible_recipe_is_refused(field: str, value: object, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Recipe(**{field: value})
    assert str(caught.value) == text
