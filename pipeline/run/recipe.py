"""Recipes: everything that decides a training run, as one frozen dataclass and TOML files."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from frostbit.pipeline.errors import UserError, unknown

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
    "full_precision_bits": ("auto", "8", "16", "32"),
}
MOST: dict[str, int] = {
    "width": 1 << 16,
    "stem_stride": 1 << 10,
    "epochs": 10**6,
    "batch": 1 << 20,
    "accumulate": 1 << 20,
    "train_images": 10**9,
    "lr_warmup_steps": 10**9,
    "shift": 1 << 10,
    "seed": 2**32 - 1,
}
"""Largest values: a recipe may come from a stranger, and sizes are multiplied with each other."""
MOST_SIDE = 1 << 12
"""Pixels of an image's height and width."""
MAX_TEXT = 1000
MAX_BYTES = 1 << 20
TRUST_VARIABLE = "FROSTBIT_TRUST_CODE"


@dataclass(frozen=True)
class Recipe:
    """Settings of a training run; with the data they determine the weights.

    Attributes:
        name: of the recipe it started from.
        dataset: see :data:`frostbit.pipeline.data.datasets.NAMES`.
        train_images: train on the first so many images of the (shuffled) split; 0 means all.
        model: e.g. ``bireal-8`` (:mod:`frostbit.pipeline.network.models`); width and stem_stride
            belong to it.
        final_sign: whether a sign stands before the global pool (bireal only).
        cifar_stem: for torchvision's networks on small images: 3x3 stem, no early halving.
        keep: name patterns, separated by commas, of layers that stay in full precision.
        method: key of :data:`frostbit.pipeline.method.stompp.METHODS`.
        binarize: ``both`` weights and activations, or ``weights``.
        epochs, batch: passes over the training split, images per step.
        optimizer: ``adam`` or ``sgd`` (momentum 0.9); no weight decay.
        lr_binary, lr_other: learning rates of the binary weights and of all other parameters.
        lr_schedule: ``constant``, ``cosine``, or ``flat-cosine`` (constant until lr_flat).
        lr_flat: part of training, in [0, 1), before a flat-cosine falls.
        lr_warmup_steps: steps over which the learning rate rises linearly at the start.
        ramp, warmup, settle, overlap: see :class:`frostbit.pipeline.method.stompp.Schedule`.
        refresh: share of the masks that is drawn again each step, in [0, 1].
        accumulate: parts of a batch that pass through the network one after another.
        clip_norm: upper limit of the gradient's norm; 0 means none.
        label_smoothing: share of the target spread over all classes, in [0, 1).
        distil: weight in [0, 1] of matching a teacher's answers in the loss (with ``--teacher``).
        temperature: of the softmax of student and teacher while distilling.
        full_precision_bits: of the weights that stay in full precision, once trained: ``8``,
            ``16``, ``32``, or ``auto`` (:mod:`frostbit.pipeline.lowering.settle`).
        precision: ``fp32``, or ``bf16``: autocast with float32 masters, masks and BatchNorm.
        sync_batchnorm: with several ranks: batch statistics over all of them.
        image_size: what pictures on disk are cropped to: one number, or height and width as in
            ``"48x96"``; 0: 224.
        image_channels: of pictures on disk: 3 for RGB, 1 for grey.
        shift: training images in memory move by up to this many pixels each way.
        flip: whether training images are mirrored left to right at random.
        crop: of pictures on disk: least share of a picture that a random crop keeps, in (0, 1].
        colour: of pictures on disk: random change of brightness, contrast and saturation, and a
            quarter of it of the hue, in [0, 1].
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
    full_precision_bits: str = "auto"
    precision: str = "fp32"
    sync_batchnorm: bool = False
    image_size: int | str = 0
    image_channels: int = 3
    shift: int = 0
    flip: bool = False
    crop: float = 0.08
    colour: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for field, choices in CHOICES.items():
            value = getattr(self, field)
            if value not in choices:
                raise unknown(field, value, choices)
        for field in ("width", "stem_stride", "epochs", "batch", "accumulate"):
            _require(self, field, getattr(self, field) >= 1, "at least 1")
        for field in (
            "lr_warmup_steps",
            "shift",
            "seed",
            "train_images",
            "clip_norm",
        ):
            _require(self, field, getattr(self, field) >= 0, "at least 0")
        for field, most in MOST.items():
            _require(self, field, getattr(self, field) <= most, f"at most {most:,}")
        for field in ("name", "dataset", "model", "keep"):
            _require(self, field, len(getattr(self, field)) <= MAX_TEXT, "shorter")
        for field in ("dataset", "model", "keep"):  # they stand in errors
            _require(self, field, getattr(self, field).isprintable(), "printable")
        for field in ("lr_binary", "lr_other", "temperature"):
            _require(self, field, 0 < getattr(self, field) < float("inf"), "positive")
        for field in ("lr_flat", "warmup", "settle", "label_smoothing"):
            _require(self, field, 0 <= getattr(self, field) < 1, "in [0, 1)")
        for field in ("refresh", "distil"):
            _require(self, field, 0 <= getattr(self, field) <= 1, "in [0, 1]")
        _require(self, "crop", 0 < self.crop <= 1, "in (0, 1]")
        _require(self, "colour", 0 <= self.colour <= 1, "in [0, 1]")
        _require(self, "overlap", 1 <= self.overlap < float("inf"), "at least 1")
        _require(self, "image_channels", self.image_channels in (1, 3), "1 (grey) or 3 (RGB)")
        sides = self.image_sides
        sensible = self.image_size == 0 or 1 <= min(sides) <= max(sides) <= MOST_SIDE
        _require(self, "image_size", sensible, f"from 1 to {MOST_SIDE:,} a side, or 0")

    @property
    def image_sides(self) -> tuple[int, int]:
        """Height and width of ``image_size``; 0 and 0 for images as they are."""
        match = re.fullmatch(r"([0-9]{1,9})(?:x([0-9]{1,9}))?", str(self.image_size))
        if match is None:
            raise UserError(
                f"image_size takes a number or height and width, e.g. 64 or '48x96', not "
                f"{_shown(self.image_size)}"
            )
        return int(match[1]), int(match[2] or match[1])


def _require(recipe: Recipe, field: str, holds: bool, what: str) -> None:
    if not holds:
        raise UserError(f"{field} must be {what}, not {str(getattr(recipe, field))[:80]}")


def recipe_names() -> tuple[str, ...]:
    """Names of the recipes that ship with the package."""
    files = resources.files("frostbit.pipeline").joinpath("recipes").iterdir()
    return tuple(sorted(f.name[: -len(".toml")] for f in files if f.name.endswith(".toml")))


def load(name: str, overrides: dict[str, Any] | None = None) -> Recipe:
    """The shipped recipe ``name`` with ``overrides`` (field -> value) applied.

    Raises:
        UserError: unknown recipe or field (with the nearest name), or a value out of range.
    """
    names = recipe_names()
    if name not in names:
        raise unknown("recipe", name, names)
    text = (
        resources.files("frostbit.pipeline").joinpath("recipes", f"{name}.toml").read_text("utf-8")
    )
    return override(from_toml(text, f"recipe '{name}'"), {"name": name, **(overrides or {})})


def from_file(path: Path, changes: dict[str, Any]) -> Recipe:
    """A recipe from a TOML file, with ``changes`` applied; its name is the file's, if it has none.

    Raises:
        UserError: unreadable file, unknown field, bad value, or code to run that nobody trusted.
    """
    recipe = from_toml(read_text(path), f"'{path}'")
    named = {"name": path.stem} if recipe.name == Recipe.name else {}
    if "model" not in changes:
        require_trust(recipe, path)
    return override(recipe, {**named, **changes})


def read_text(path: Path, what: str = "recipe") -> str:
    """Text of a TOML file, as editors save it; UserError if it is no UTF-8, or larger than any."""
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{what} '{path}' is no text in UTF-8 ({error}); save it so") from error
    except OSError as error:
        raise UserError(f"cannot read {what} '{path}' ({error}); check the path") from error
    if len(data) > MAX_BYTES:
        raise UserError(f"'{path}' is larger than {MAX_BYTES:,} bytes: no {what}; check the path")
    return text


ANY_CODE = "*"
_TRUSTED: set[str] = set()


def trust(model: str) -> None:
    """The user named this ``module:factory`` in this process: files may name it too."""
    _TRUSTED.add(model)


@contextmanager
def trusting() -> Iterator[None]:
    """Inside the block files may name any code: the user said so with --trust."""
    _TRUSTED.add(ANY_CODE)
    try:
        yield
    finally:
        _TRUSTED.discard(ANY_CODE)


def require_trust(recipe: Recipe, where: Path) -> None:
    """Refuse a recipe from a file whose model is code to import, unless the user said so.

    Raises:
        UserError: the model is ``module:factory``, and neither :func:`trusting` nor
            ``$FROSTBIT_TRUST_CODE`` say that it may run.
    """
    named = bool({recipe.model, ANY_CODE} & _TRUSTED) or os.environ.get(TRUST_VARIABLE) == "1"
    if ":" in recipe.model and not named:
        raise UserError(
            f"'{where}' names code to run, model {_shown(recipe.model)}; if you trust it, say so "
            f"with --trust, or with {TRUST_VARIABLE}=1 outside this command"
        )


def differences(one: Recipe, other: Recipe) -> list[str]:
    """Names of the fields in which two recipes differ."""
    names = (field.name for field in dataclasses.fields(Recipe))
    return [name for name in names if getattr(one, name) != getattr(other, name)]


def from_toml(text: str, where: str) -> Recipe:
    """Parse a recipe; ``where`` names its source in errors."""
    try:
        fields = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits is a ValueError
        reason = ascii(str(error)[:200])[1:-1]
        raise UserError(f"{where} is not valid TOML ({reason}); correct that line") from error
    return override(Recipe(), fields)


def override(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    """``recipe`` with ``changes``; values may be text as given on a command line."""
    types = {f.name: type(f.default) for f in dataclasses.fields(Recipe)}
    checked = {}
    for field, value in changes.items():
        if field not in types:
            raise unknown("recipe field", field, types)
        sized = field == "image_size" and isinstance(value, str) and not value.isdecimal()
        checked[field] = value if sized else _convert(field, value, types[field])
    return dataclasses.replace(recipe, **checked)


def _convert(field: str, value: Any, kind: type) -> Any:
    if kind is bool and isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if type(value) is kind:
        return value
    if type(value) is int and field in CHOICES:
        return str(value)[:80]
    try:
        if kind in (int, float) and isinstance(value, str):
            return kind(value)
    except ValueError:
        pass
    if kind is float and type(value) is int and abs(value) < 2**1000:
        return float(value)
    raise UserError(f"{field} takes a value of type {kind.__name__}, not {_shown(value)}")


def _shown(value: Any) -> str:
    """A value from a file inside quotes, short and on one line."""
    text = str(value)[:80]
    return f"'{text}'" if text.isprintable() else f"{text!a}"


def to_toml(recipe: Recipe) -> str:
    """The recipe as TOML; :func:`from_toml` reads it back unchanged."""
    fields = dataclasses.asdict(recipe)
    return "".join(f"{field} = {_toml_value(value)}\n" for field, value in fields.items())


def _toml_value(value: Any) -> str:
    """Text, number or truth value in TOML: as in JSON, but DEL is escaped and the rest is not."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
