"""Recipes: what ships, what may be changed, and what is refused."""

import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frostbit.pipeline.data import datasets
from frostbit.pipeline.errors import UserError
from frostbit.pipeline.method.stompp import METHODS, RAMPS
from frostbit.pipeline.network import models, zoo
from frostbit.pipeline.run import recipe
from frostbit.pipeline.run.recipe import Recipe


@pytest.mark.parametrize("name", recipe.recipe_names())
def test_shipped_recipes_are_complete(name: str) -> None:
    found = recipe.load(name)
    assert found.name == name
    assert found.dataset in datasets.NAMES
    assert found.model in zoo.NAMES or models.parse(found.model)[0] in models.FAMILIES
    assert found.seed == 0


def test_the_two_first_recipes_ship() -> None:
    assert {"digits", "fashion-small"} <= set(recipe.recipe_names())


def test_names_are_those_of_the_method() -> None:
    assert set(recipe.METHOD_NAMES) == set(METHODS)
    assert set(recipe.RAMP_NAMES) == set(RAMPS)


def test_overrides_as_values_and_as_text() -> None:
    changed = recipe.load(
        "digits", {"epochs": "7", "lr_other": "1e-4", "method": "ste", "final_sign": "true"}
    )
    assert (changed.epochs, changed.lr_other, changed.method) == (7, 1e-4, "ste")
    assert changed.final_sign is True
    assert recipe.override(changed, {"warmup": 0, "seed": 3}).warmup == 0.0


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"epoch": 3}, "did you mean 'epochs'"),
        ({"method": "stomp"}, "did you mean 'stompp'"),
        ({"ramp": "cubik"}, "did you mean 'cubic'"),
        ({"epochs": "many"}, "epochs takes a value of type int"),
        ({"epochs": 1.5}, "epochs takes a value of type int"),
        ({"final_sign": 1}, "final_sign takes a value of type bool"),
        ({"epochs": True}, "epochs takes a value of type int"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"refresh": 1.5}, "refresh must be in"),
        ({"warmup": 1.0}, "warmup must be in"),
        ({"lr_other": 0}, "lr_other must be positive"),
        ({"lr_binary": math.inf}, "lr_binary must be positive"),
        ({"overlap": math.nan}, "overlap must be at least 1"),
    ],
)
def test_wrong_fields_and_values_are_named(changes: dict[str, object], text: str) -> None:
    with pytest.raises(UserError) as refusal:
        recipe.load("digits", changes)
    assert text in str(refusal.value)


def test_an_unknown_recipe_gets_a_suggestion() -> None:
    with pytest.raises(UserError, match="did you mean 'fashion-small'"):
        recipe.load("fashion-smal")


def test_a_file_that_is_not_toml_is_named() -> None:
    with pytest.raises(UserError, match="'mine' is not valid TOML"):
        recipe.from_toml("epochs = = 3", "'mine'")


@settings(deadline=None)
@given(
    st.builds(
        Recipe,
        name=st.text(st.characters(codec="utf-8"), max_size=20),
        epochs=st.integers(1, 10**6),
        lr_binary=st.floats(1e-12, 1e3),
        warmup=st.floats(0, 0.99),
        final_sign=st.booleans(),
        method=st.sampled_from(recipe.METHOD_NAMES),
    )
)
def test_a_written_recipe_reads_back_unchanged(written: Recipe) -> None:
    assert recipe.from_toml(recipe.to_toml(written), "test") == written


def test_every_field_is_documented() -> None:
    documented = Recipe.__doc__ or ""
    assert all(f.name in documented for f in dataclasses.fields(Recipe))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("birel-8", "did you mean 'bireal-8'"),
        ("bireal", "unknown model"),
        ("plain-7", "even number"),
        ("mlp-0", "unknown model"),
    ],
)
def test_unknown_models_are_named(name: str, text: str) -> None:
    with pytest.raises(UserError, match=text):
        models.parse(name)


def test_impossible_models_are_refused() -> None:
    shape = models.Shape((8, 9, 1), 10, (0.5,), (0.5,))
    with pytest.raises(UserError, match="at least 1"):
        models.build("mlp-2", shape, models.Options(0))
