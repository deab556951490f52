"""Recipes: everything that decides a training run, as one frozen dataclass and TOML files."""

from __future__ import annotations

import dataclasses
import difflib
import json
import sys
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from pipeline.errors import UserError

OPTIMIZERS = ("adam", "sgd")
LR_SCHEDULES = ("constant", "cosine", "flat-cosine")
METHOD_NAMES = (
    "stompp", "stompp-ste", "global", "global-ste", "reverse", "ste", "float", "frozen",
)  # fmt: skip
PRECISIONS = ("fp32", "bf16")
RAMP_NAMES = ("linear", "quadratic", "cubic", "cosine")
CHOICES: dict[str, tuple[str, ...]] = {
    "method": METHOD_NAMES,
    "binarize": ("both", "weights"),
    "ramp": RAMP_NAMES,
    "optimizer": OPTIMIZERS,
    "lr_schedule": LR_SCHEDULES,
    "precision": PRECISIONS,
}


@dataclass(frozen=True)
class Recipe:
    """Settings of a training run; with the data they determine the weights.

    Attributes:
        name: of the recipe it started from.
        dataset: see :data:`pipeline.data.NAMES`.
        train_images: train on the first so many images of the (shuffled) split; 0 means all.
        model: e.g. ``bireal-8`` (:mod:`pipeline.models`); width and stem_stride belong to it.
        final_sign: whether a sign stands before the global pool (bireal only).
        cifar_stem: for torchvision's networks on small images: 3x3 stem, no early halving.
        keep: name patterns, separated by commas, of layers that stay in full precision.
        method: key of :data:`pipeline.stompp.METHODS`.
        binarize: ``both`` weights and activations, or ``weights``.
        epochs, batch: passes over the training split, images per step.
        optimizer: ``adam`` or ``sgd`` (momentum 0.9); no weight decay.
        lr_binary, lr_other: learning rates of the binary weights and of all other parameters.
        lr_schedule: ``constant``, ``cosine``, or ``flat-cosine`` (constant until lr_flat).
        lr_flat: part of training, in [0, 1), before a flat-cosine falls.
        lr_warmup_steps: steps over which the learning rate rises linearly at the start.
        ramp, warmup, settle, overlap: see :class:`pipeline.stompp.Schedule`.
        refresh: share of the masks that is drawn again each step, in [0, 1].
        accumulate: parts of a batch that pass through the network one after another.
        clip_norm: upper limit of the gradient's norm; 0 means none.
        label_smoothing: share of the target spread over all classes, in [0, 1).
        distil: weight in [0, 1] of matching a teacher's answers in the loss (with ``--teacher``).
        temperature: of the softmax of student and teacher while distilling.
        precision: ``fp32``, or ``bf16``: autocast with float32 masters, masks and BatchNorm.
        sync_batchnorm: with several ranks: batch statistics over all of them.
        image_size: height and width that photographs are cropped to; 0: as they are.
        shift: training images move by up to this many pixels each way.
        flip: whether training images are mirrored left to right at random.
        seed: of weights, masks, order and augmentation.
    """

    name: str = "custom"
    dataset: str = "digits"
    train_images: int = 0
    model: str = "bireal-4"
    width: int = 16
    stem_stride: int = 1
    final_sign: bool = False
    cifar_stem: bool = False
    keep: str = ""
    method: str = "stompp"
    binarize: str = "both"
    epochs: int = 10
    batch: int = 50
    optimizer: str = "adam"
    lr_binary: float = 1e-2
    lr_other: float = 3e-3
    lr_schedule: str = "flat-cosine"
    lr_flat: float = 0.8
    lr_warmup_steps: int = 20
    ramp: str = "linear"
    warmup: float = 0.25
    settle: float = 0.1
    overlap: float = 4.0
    refresh: float = 0.01
    accumulate: int = 1
    clip_norm: float = 0.0
    label_smoothing: float = 0.0
    distil: float = 0.5
    temperature: float = 1.0
    precision: str = "fp32"
    sync_batchnorm: bool = False
    image_size: int = 0
    shift: int = 0
    flip: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for field, choices in CHOICES.items():
            value = getattr(self, field)
            if value not in choices:
                raise UserError(
                    f"unknown {field} '{value}'; did you mean '{nearest(value, choices)}'?"
                )
        for field in ("width", "stem_stride", "epochs", "batch", "accumulate"):
            _require(self, field, getattr(self, field) >= 1, "at least 1")
        for field in (
            "lr_warmup_steps",
            "shift",
            "seed",
            "train_images",
            "image_size",
            "clip_norm",
        ):
            _require(self, field, getattr(self, field) >= 0, "at least 0")
        for field in ("lr_binary", "lr_other", "temperature"):
            _require(self, field, 0 < getattr(self, field) < float("inf"), "positive")
        for field in ("lr_flat", "warmup", "settle", "label_smoothing"):
            _require(self, field, 0 <= getattr(self, field) < 1, "in [0, 1)")
        for field in ("refresh", "distil"):
            _require(self, field, 0 <= getattr(self, field) <= 1, "in [0, 1]")
        _require(self, "overlap", 1 <= self.overlap < float("inf"), "at least 1")


def _require(recipe: Recipe, field: str, holds: bool, what: str) -> None:
    if not holds:
        raise UserError(f"{field} must be {what}, not {getattr(recipe, field)}")


def nearest(name: str, names: tuple[str, ...]) -> str:
    """The one of ``names`` that looks most like ``name``."""
    return difflib.get_close_matches(name, names, n=1, cutoff=0)[0]


def recipe_names() -> tuple[str, ...]:
    """Names of the recipes that ship with the package."""
    files = resources.files("pipeline").joinpath("recipes").iterdir()
    return tuple(sorted(f.name[: -len(".toml")] for f in files if f.name.endswith(".toml")))


def load(name: str, overrides: dict[str, Any] | None = None) -> Recipe:
    """The shipped recipe ``name`` with ``overrides`` (field -> value) applied.

    Raises:
        UserError: unknown recipe or field (with the nearest name), or a value out of range.
    """
    names = recipe_names()
    if name not in names:
        raise UserError(f"unknown recipe '{name}'; did you mean '{nearest(name, names)}'?")
    text = resources.files("pipeline").joinpath("recipes", f"{name}.toml").read_text("utf-8")
    return override(from_toml(text, f"recipe '{name}'"), {"name": name, **(overrides or {})})


def from_file(path: Path, changes: dict[str, Any]) -> Recipe:
    """A recipe from a TOML file, with ``changes`` applied; its name is the file's, if it has none.

    Raises:
        UserError: unreadable file, unknown field, bad value.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read recipe '{path}' ({error}); check the path") from error
    recipe = from_toml(text, f"'{path}'")
    named = {"name": path.stem} if recipe.name == Recipe.name else {}
    return override(recipe, {**named, **changes})


def differences(one: Recipe, other: Recipe) -> list[str]:
    """Names of the fields in which two recipes differ."""
    names = (field.name for field in dataclasses.fields(Recipe))
    return [name for name in names if getattr(one, name) != getattr(other, name)]


def from_toml(text: str, where: str) -> Recipe:
    """Parse a recipe; ``where`` names its source in errors."""
    try:
        fields = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{where} is not valid TOML ({error}); correct that line") from error
    return override(Recipe(), fields)


def override(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    """``recipe`` with ``changes``; values may be text as given on a command line."""
    types = {f.name: type(f.default) for f in dataclasses.fields(Recipe)}
    checked = {}
    for field, value in changes.items():
        if field not in types:
            near = nearest(field, tuple(types))
            raise UserError(f"unknown recipe field '{field}'; did you mean '{near}'?")
        checked[field] = _convert(field, value, types[field])
    return dataclasses.replace(recipe, **checked)


def _convert(field: str, value: Any, kind: type) -> Any:
    if kind is bool and isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if type(value) is kind:
        return value
    try:
        if kind in (int, float) and isinstance(value, str):
            return kind(value)
    except ValueError:
        pass
    if kind is float and type(value) is int:
        return float(value)
    raise UserError(f"{field} takes a value of type {kind.__name__}, not '{value}'")


def to_toml(recipe: Recipe) -> str:
    """The recipe as TOML; :func:`from_toml` reads it back unchanged."""
    fields = dataclasses.asdict(recipe)
    return "".join(f"{field} = {_toml_value(value)}\n" for field, value in fields.items())


def _toml_value(value: Any) -> str:
    """Text, number or truth value in TOML: as in JSON, but DEL is escaped and the rest is not."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
