"""Methods of denoising by name: their settings, their configs, and how mistakes are answered."""

import pytest

import mtjax
from mtjax.cli.config_file import ConfigFile
from mtjax.cli.method_names import method_config
from mtjax.diffusion import DecidingPolicy
from mtjax.diffusion.denoising.caches import BlockStale, Uncached
from mtjax.diffusion.order import MaxProbability, RandomPositions, TopMargin
from mtjax.diffusion.revise import KeepDecided, RemdmCap
from mtjax.diffusion.transfer import Ancestral, Threshold
from mtjax.registry.denoising.denoiser import Denoiser
from mtjax.registry.denoising.methods import DENOISERS, denoise_config, make_denoiser
from mtjax.registry.denoising.rules import ROLES, get_rule
from mtjax.types import Exactness


def test_names_with_settings_are_the_rules():
  method = Denoiser(
    order="top_margin", transfer="threshold:threshold=0.5", revise="keep", cache="dual"
  )
  assert method.policy == DecidingPolicy(TopMargin(), Threshold(0.5), KeepDecided())
  assert method.caching == BlockStale(suffix=True)


def test_rules_themselves_are_taken_too():
  rule = Threshold([0.5, 0.75])
  method = mtjax.denoiser("llada", transfer=rule, steps=4, cache=Uncached())
  assert method.policy.transfer is rule and method.steps == 4
  assert method.policy.order == get_rule("order", DENOISERS["llada"].denoiser.order)


@pytest.mark.parametrize("role", ROLES)
def test_every_row_is_made_with_its_defaults_and_with_each_setting(role):
  for name, row in ROLES[role].items():
    made = row()
    assert type(made).__name__ == row.make.__name__
    for setting, value in row.settings.items():
      assert get_rule(role, f"{name}:{setting}={value}") == made


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    (dict(order="best"), "order policy 'best' is not one of: random, left_to_right, max_prob"),
    (dict(transfer="tresh"), "transfer rule 'tresh' is not one of: one_by_one, llada_counts"),
    (dict(revise="undo"), "revision rule 'undo' is not one of: keep, edit, wino, remdm_cap"),
    (dict(cache="all"), "cache 'all' is not one of: none, exact, prefix, dual"),
    (dict(transfer="threshold:gamma=1"), "'threshold': .* no setting gamma; it has: threshold"),
    (dict(cache="prefix:suffix=True"), "'prefix': .* no setting suffix; it has: none"),
    (dict(transfer="threshold:threshold=high"), "threshold must be a number, .* got 'high'"),
    (dict(transfer="threshold:threshold=True"), "threshold must be a number, .* got True"),
    (dict(transfer="threshold:threshold=0"), "threshold must be above 0.0, at most 1.0: got 0"),
    (dict(transfer="threshold:threshold=1.5"), "threshold must be above 0.0, at most 1.0"),
    (dict(transfer="threshold", order="low_entropy"), "compares scores with probabilities, which"),
    (dict(revise="remdm_cap"), "a coin of its own, which LladaCounts does not: use Ancestral"),
    (dict(length=0), "length must be at least 1, got 0"),
    (dict(length=2.5), "length must be a whole number, got 2.5"),
    (dict(steps=0), "steps must be at least 1, got 0"),
    (dict(block_length=-1), "block_length must be at least 0, got -1"),
    (dict(length=64, block_length=24), "length must be a multiple of block_length, got 64 and 24"),
    (dict(length=64, block_length=8, steps=4), "steps must be at least the number of blocks, 8 of"),
    (dict(length=64, block_length=16, steps=6), "steps must be a multiple of the number of blocks"),
    (dict(filtered_confidence="yes"), "filtered_confidence must be True or False, got 'yes'"),
  ],
)
def test_a_mistake_in_a_setting_is_named(settings, message):
  with pytest.raises(ValueError, match=message):
    Denoiser(**settings)


def test_exactness_is_that_of_the_rules_and_the_cache():
  exact = mtjax.denoiser("first_hitting")
  assert exact.exactness is Exactness.LOSSLESS and exact.reason == ""
  assert mtjax.denoiser("first_hitting", cache="exact").exactness is Exactness.LOSSLESS
  old = mtjax.denoiser("first_hitting", cache="prefix")
  assert old.exactness is Exactness.APPROXIMATE and "keys of other blocks" in old.reason
  assert "independently of each other" in mtjax.denoiser("mdlm").reason


def test_unknown_names_and_keywords_are_answered_with_the_known_ones():
  with pytest.raises(ValueError, match="method of denoising 'magic' is not one of: llada, dream"):
    mtjax.denoiser("magic")
  with pytest.raises(ValueError, match="has no setting step; it has: length, block_length, steps"):
    mtjax.denoiser("llada", step=3)


@pytest.mark.parametrize("name", DENOISERS)
def test_a_config_is_the_method_of_its_name(name):
  config = ConfigFile(method_config).parse(name)
  assert config.method == "denoise" and config.is_locked
  assert make_denoiser(config) == DENOISERS[name].denoiser


def test_configs_are_those_of_the_papers():
  dream, remdm = denoise_config("dream"), denoise_config("remdm")
  assert (dream.temperature, dream.top_p) == (0.2, 0.95) and dream.denoise.filtered_confidence
  assert make_denoiser(remdm).policy == DecidingPolicy(
    RandomPositions(), Ancestral(), RemdmCap(0.008)
  )
  assert denoise_config("llada").temperature == 0
  assert MaxProbability() == get_rule("order", "max_probability")


def test_a_group_of_a_config_with_an_unknown_setting_is_refused():
  config = denoise_config("llada").to_dict()
  config["denoise"]["stepz"] = 3
  with pytest.raises(ValueError, match="group, denoise, has no setting stepz; it has: length"):
    make_denoiser(config)


def test_it_is_shown_as_what_makes_it():
  assert repr(Denoiser(steps=8)) == "Denoiser(steps=8)"
  shown = repr(mtjax.denoiser("fast_dllm"))
  assert eval(shown, dict(Denoiser=Denoiser)) == mtjax.denoiser("fast_dllm")
