"""Methods of denoising by name: their settings, their configs, and how mistakes are answered."""

import pytest

import mtjax
from mtjax.cli.config_file import ConfigFile
from mtjax.cli.method_names import method_config
from mtjax.diffusion import DecidingPolicy
from mtjax.diffusion.denoising.caches import BlockStale, ExactBlocks, Uncached
from mtjax.diffusion.denoising.guidance import ClassifierFree
from mtjax.diffusion.denoising.machines import BlockBuffer, Pipeline, SubBlocks
from mtjax.diffusion.order import MaxProbability, RandomPositions, TopMargin
from mtjax.diffusion.revise import EditTokens, KeepDecided, RemdmCap
from mtjax.diffusion.transfer import Ancestral, Threshold
from mtjax.registry.denoising.denoiser import BlockDenoiser, Denoiser
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
    (dict(order="best"), "order policy 'best' is not one of: random, left_to_right, halton"),
    (dict(transfer="tresh"), "transfer rule 'tresh' is not one of: one_by_one, llada_counts"),
    (dict(revise="undo"), "revision rule 'undo' is not one of: keep, edit, levenshtein, wino"),
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


def test_methods_by_a_machine_have_its_settings():
  method = mtjax.denoiser("d2f", length=16, machine="pipeline:add=0.5:in_flight=2")
  assert method == BlockDenoiser(16, "pipeline:add=0.5:in_flight=2")
  assert method.making == Pipeline(add=0.5, in_flight=2)
  assert mtjax.denoiser("multi_bd", machine=BlockBuffer(edit=[0.5, 1.0])).making.edit == [0.5, 1.0]
  assert mtjax.denoiser("fast_dllm_v2").making == SubBlocks(threshold=0.9, sub_block=8)
  assert method.exactness is Exactness.APPROXIMATE and "before the blocks" in method.reason
  for settings, message in (
    (
      dict(steps=4),
      "method of denoising, d2f, has no setting steps; it has: length, machine",
    ),
    (dict(machine="line"), "machine 'line' is not one of: pipeline, block_buffer, token"),
    (
      dict(machine="pipeline:edit=0.5"),
      "'pipeline': .* has no setting edit; it has: add",
    ),
    (dict(machine="pipeline:in_flight=0"), "'pipeline': in_flight must be at least 1, got 0"),
    (dict(machine="pipeline:in_flight=2.5"), "in_flight must be a whole number, got 2.5"),
    (dict(length=0), "length must be at least 1, got 0"),
  ):
    with pytest.raises(ValueError, match=message):
      mtjax.denoiser("d2f", **settings)


def test_llada21_and_lookahead_are_rules_of_the_loop():
  edits = mtjax.denoiser("llada21")
  assert edits.policy.transfer == Threshold(0.95) and edits.policy.revise == EditTokens(0.9, 16)
  assert isinstance(edits.caching, ExactBlocks) and edits.needs == "a block-causal one"
  assert mtjax.denoiser("lookahead").lookahead == 3 and mtjax.denoiser("lookahead").steps == 64
  assert mtjax.denoiser("classifier_free").guiding == ClassifierFree(0.5)
  with pytest.raises(ValueError, match="lookahead must be at least 0, got -1"):
    mtjax.denoiser("lookahead", lookahead=-1)


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
