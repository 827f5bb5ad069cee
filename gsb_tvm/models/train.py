"""Train GSB networks: ``python -m gsb_tvm.models.train fit`` and ``... train demo``."""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from gsb_tvm.dialect.errors import ExitCode, GsbError, UsageError
from gsb_tvm.models import datasets
from gsb_tvm.models.demo_training import DEMO_RECIPE, check_writable, train_demo
from gsb_tvm.models.export import FORMS, export
from gsb_tvm.models.gsb import PRESETS, GsbConfig
from gsb_tvm.models.recipe import Progress, Recipe
from gsb_tvm.models.run import Observer, finish, load_run, start


@contextmanager
def progress_bar(console: Console) -> Iterator[Observer]:
    """Show a bar for each stage, with its epochs, loss and remaining time."""
    columns = (
        TextColumn("{task.description:<8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("epochs  loss {task.fields[loss]:.3f}"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console) as bar:
        tasks: dict[str, TaskID] = {}
        losses: dict[str, float] = {}

        def observe(at: Progress) -> None:
            # A stage that starts over at epoch 0 is another network: it gets its own bar.
            if at.stage not in tasks or (at.epoch == 0 and at.step == 1):
                tasks[at.stage] = bar.add_task(at.stage, total=at.epochs, loss=at.loss)
                losses[at.stage] = at.loss
            losses[at.stage] = 0.95 * losses[at.stage] + 0.05 * at.loss
            done = at.epoch + (at.step == at.steps)
            bar.update(tasks[at.stage], completed=done, loss=losses[at.stage])

        yield observe


def _fit(args: argparse.Namespace, console: Console) -> None:
    data = datasets.load(args.data)
    if args.resume:
        run = load_run(args.resume)
        _check_same_images(run.config, data, args.data)
    else:
        run = start(_config(args, data), _recipe(args), data)
    with progress_bar(console) as observe:
        run = finish(run, data, observe, args.save)
    for stage, value in run.accuracies.items():
        print(f"{stage:<8} accuracy {value:.4f} on {len(data.test_labels)} test images")
    if args.export:
        export(run.model, args.export, args.form)
        print(f"{args.export}: {args.export.stat().st_size} bytes")


def _demo(args: argparse.Namespace, console: Console) -> None:
    recipe = replace(DEMO_RECIPE, seed=args.seed)
    if args.epochs:
        recipe = replace(recipe, epochs=tuple(args.epochs))
    check_writable(args.out)
    with progress_bar(console) as observe:
        record = train_demo(args.out, recipe, observe)
    for name, value in record["accuracy"].items():
        print(f"{name:<18} {value:.4f} on {record['test_images']} test images")
    print(f"{args.out / record['model']}: {record['bytes']} bytes")


def _config(args: argparse.Namespace, data: datasets.Dataset) -> GsbConfig:
    _, channels, size, _ = data.train_images.shape
    own = {key: getattr(args, key) for key in ("width", "depth", "heads", "mlp_ratio")}
    try:
        return replace(
            PRESETS[args.preset],
            image_size=size,
            channels=channels,
            classes=data.classes,
            patch_size=args.patch_size or max(1, size // 14),
            distilled=not args.no_distillation_token,
            groups=args.groups,
            **{key: value for key, value in own.items() if value is not None},
        )
    except ValueError as error:
        raise UsageError(f"the network does not fit: {error}. Change --{_option(error)}.") from None


def _check_same_images(config: GsbConfig, data: datasets.Dataset, source: str) -> None:
    _, channels, size, _ = data.train_images.shape
    found = (channels, size, data.classes)
    expected = (config.channels, config.image_size, config.classes)
    if found != expected:
        raise UsageError(
            f"{source}: channels, image size and classes are {found}, but the saved network was "
            f"trained on {expected}. Resume with the same --data."
        )


def _option(error: ValueError) -> str:
    return "heads or --width" if "heads" in str(error) else "patch-size"


def _recipe(args: argparse.Namespace) -> Recipe:
    return Recipe(
        epochs=tuple(args.epochs),
        learning_rate=args.learning_rate,
        weight_decay=args.weight_decay,
        batch=args.batch,
        label_smoothing=args.label_smoothing,
        jitter=args.jitter,
        seed=args.seed,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m gsb_tvm.models.train",
        description="Train a GSB network: float teacher, binary MLP weights, then all binary.",
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch (default 1)")
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="train the demo model on scikit-learn's digits")
    demo.add_argument(
        "--out", type=Path, default=Path(), help="folder for the model and its record"
    )
    demo.add_argument("--seed", type=int, default=DEMO_RECIPE.seed)
    _add_epochs(demo, None)
    demo.set_defaults(run=_demo)
    fit = commands.add_parser("fit", help="train on any images")
    fit.set_defaults(run=_fit)
    _add_fit_options(fit)
    return parser


def _add_epochs(parser: argparse.ArgumentParser, default: tuple[int, int, int] | None) -> None:
    parser.add_argument(
        "--epochs",
        type=int,
        nargs=3,
        default=default,
        metavar=("TEACHER", "STAGE1", "STAGE2"),
        help="epochs of the three stages",
    )


def _add_fit_options(fit: argparse.ArgumentParser) -> None:
    paper = Recipe()
    fit.add_argument("--data", default="digits", help="digits, or an .npz with images and labels")
    fit.add_argument("--preset", choices=PRESETS, default="deit-small", help="network shape")
    fit.add_argument("--width", type=int, help="instead of the preset's")
    fit.add_argument("--depth", type=int, help="instead of the preset's")
    fit.add_argument("--heads", type=int, help="instead of the preset's")
    fit.add_argument("--mlp-ratio", type=float, help="instead of the preset's")
    fit.add_argument("--patch-size", type=int, help="pixels a patch side (default: 14 patches)")
    fit.add_argument("--no-distillation-token", action="store_true", help="one head only")
    fit.add_argument("--groups", type=int, choices=(1, 3), default=3, help="1 is the ablation")
    _add_epochs(fit, paper.epochs)
    fit.add_argument("--learning-rate", type=float, default=paper.learning_rate)
    fit.add_argument("--weight-decay", type=float, default=paper.weight_decay)
    fit.add_argument("--batch", type=int, default=paper.batch)
    fit.add_argument("--label-smoothing", type=float, default=paper.label_smoothing)
    fit.add_argument("--jitter", type=float, default=paper.jitter, help="0 to 1: turn, scale, move")
    fit.add_argument("--seed", type=int, default=paper.seed)
    fit.add_argument("--save", type=Path, metavar="FILE", help="write the state every epoch")
    fit.add_argument(
        "--resume", type=Path, metavar="FILE", help="go on from a saved state, with its options"
    )
    fit.add_argument("--export", type=Path, metavar="ONNX", help="write the trained network")
    fit.add_argument("--form", choices=FORMS, default="legacy", help="ONNX form of --export")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    args = _parser().parse_args(argv)
    torch.set_num_threads(max(1, args.threads))
    command: Callable[[argparse.Namespace, Console], None] = args.run
    try:
        command(args, Console(stderr=True))
    except GsbError as error:
        print(f"error: {error}", file=sys.stderr)
        return int(error.exit_code)
    except KeyboardInterrupt:
        kept = f" Go on with --resume {args.save}." if getattr(args, "save", None) else ""
        print(f"interrupted.{kept}", file=sys.stderr)
        return int(ExitCode.INTERRUPTED)
    return int(ExitCode.OK)


if __name__ == "__main__":
    sys.exit(main())
