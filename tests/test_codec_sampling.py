"""How codes are sampled is the codec's to say, unless the recipe does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import tiny_codecs

from distill.codecs import dac, embedded, tracks
from distill.config import recipe
from distill.config.settings import kinds, settings_class
from distill.errors import SettingsError
from distill.singing.singer_folder import About
from distill.writing.sampling import Sampling

RECIPE = """
task: sing
seed: 1
songs: {{kind: embedded}}
codec: {codec}
{more}
"""


def sampling_of(codec: str, more: str = "") -> Sampling:
    settings = recipe.parse(RECIPE.format(codec=codec, more=more), "r").settings
    return settings.sampling


@pytest.mark.parametrize("kind", sorted(set(kinds("codecs")) - {"tracks"}))
def test_every_codec_says_how_and_only_ours_is_greedy(kind, tmp_path: Path):
    cls = settings_class("codecs", kind)
    for make in tiny_codecs.MAKERS[kind][:1]:
        own = make(tmp_path).settings.sampling
    assert isinstance(own, Sampling) and own.ties
    assert isinstance(cls.sampling, property)
    assert (own.level(0) == 0) == (kind == "embedded")
    whole = tracks.Settings(replace(make(tmp_path).settings), ("vocals",))
    assert whole.sampling == own


def test_a_recipe_takes_its_codecs_and_prints_it():
    for codec in ("{kind: dac, path: 44khz}", "{kind: embedded}"):
        parsed = recipe.parse(RECIPE.format(codec=codec, more=""), "r")
        own = parsed.settings.codec.sampling
        assert parsed.settings.sampling == own
        again = recipe.parse(parsed.yaml(), "r")
        assert again.settings.sampling == own
        assert "sampling:\n  temperatures: [" in parsed.yaml()
        (printed,) = [line for line in recipe.check(parsed) if line.startswith("  sampling: ")]
        assert f"temperatures {list(own.temperatures)}" in printed
    assert sampling_of("{kind: embedded}").temperatures == (0.0, 0.5)
    assert dac.Settings("44khz").sampling.temperatures == (1.0,)


def test_what_a_recipe_says_is_said_in_whole():
    """Half of a codec's values and half of a recipe's would be neither's."""
    given = sampling_of("{kind: dac, path: 44khz}", "sampling: {temperatures: [0.7], top_p: 0.9}")
    assert given == Sampling((0.7,), top_p=0.9)
    assert sampling_of("{kind: embedded}", "sampling: null") == embedded.Settings().sampling
    with pytest.raises(SettingsError, match=r"sampling\.temperatures"):
        sampling_of("{kind: dac, path: 44khz}", "sampling: {top_k: 5}")


def test_a_singer_json_of_before_samples_as_before():
    about = About({}, "", (4, 4), "", 100)
    assert about.sampling == Sampling((0.0, 0.5), 0.9, None, None, ties=False)
