"""TextModel.denoise with uniform canvases: texts, frames, methods by name, and refusals."""

import jax
import pytest

import mtjax
from mtjax.data.tokenizers import ByteTokenizer
from mtjax.diffusion.uniform import AcceptOrRenoise, CausalEncoder, NoisePosterior, WholeText
from mtjax.diffusion.uniform.texts import uniform_network_of
from mtjax.models import CanvasLayer, DiffusionGemmaConfig, Model, TransformerConfig, uniform_layers
from mtjax.registry.denoising.methods import denoise_config, make_denoiser
from mtjax.registry.denoising.uniform_denoiser import UniformDenoiser
from mtjax.text import TextModel

PROMPTS = ["a cat", "on the mat "]


def text_model(config):
  model = Model(config)
  params = jax.tree.map(lambda x: 3 * x, model.init(jax.random.key(0)))
  return TextModel(model, params, ByteTokenizer())


GEMMA = text_model(
  DiffusionGemmaConfig(
    vocab_size=258, dim=16, heads=2, mlp_dim=16, experts=2, top_experts=1, expert_dim=8,
    layers=(CanvasLayer(1, 8),), canvas_length=4, max_position=64,
  )
)  # fmt: skip


def plain(**settings):
  fields = dict(predicts="masked", extra_embeddings=1, extra_names=("mask",), noise="hybrid")
  fields |= settings
  return text_model(
    TransformerConfig(258, 16, 2, 1, 8, 16, uniform_layers(1), max_position=64, **fields)
  )


PLAIN = plain()
MASKS_ALONE = plain(noise="absorbing")
CAUSAL = plain(predicts="next_token", noise="absorbing")


@pytest.mark.parametrize(
  ("model", "method"),
  [
    (GEMMA, mtjax.denoiser("diffusion_gemma", length=8, steps=3)),
    (PLAIN, mtjax.denoiser("gidd", length=8, canvas_length=4, steps=3)),
  ],
  ids=["diffusion_gemma", "gidd"],
)
def test_frames_lead_to_the_text_that_one_program_gives(model, method):
  frames = []
  completions, run = model.denoise(PROMPTS, method=method, key=3)
  seen, same = model.denoise(PROMPTS, method=method, key=3, on_pass=frames.append)
  assert seen == completions and same.tokens == run.tokens and same.decided_at == run.decided_at
  assert [frame.number for frame in frames] == list(range(1 + max(run.passes)))
  drawn = []
  again, _ = model.denoise(PROMPTS, method=method, key=3, trace=True, on_pass=drawn.append)
  assert again == completions and drawn == frames, "a trace draws the same pictures"
  assert frames[0].tokens == [[None] * 8] * 2 and frames[0].decided_at == [[0] * 8] * 2
  assert frames[1].tokens[0][4:] == [None] * 4
  for row, completion in enumerate(completions):
    size = len(completion.tokens)
    assert frames[-1].tokens[row][:size] == completion.tokens
    assert completion.prompt == PROMPTS[row]
    assert completion.text == ByteTokenizer().decode(completion.tokens)
  end = run.tokens[0][1]
  (ended, _), _ = model.denoise(PROMPTS, method=method, key=3, eos=[end])
  assert ended.tokens == run.tokens[0][: 1 + run.tokens[0].index(end)] and ended.finish == "eos"


def test_names_with_settings_are_the_rules():
  method = mtjax.denoiser("diffusion_gemma", rule="accept_or_renoise:gamma=0.5:t_max=1.5")
  assert method.deciding == AcceptOrRenoise(gamma=0.5, t_max=1.5)
  rule = NoisePosterior(temperature=[0.5, 1.0])
  assert mtjax.denoiser("gidd", rule=rule).deciding is rule
  config = denoise_config("diffusion_gemma")
  assert config.temperature == 0 and make_denoiser(config.to_dict()) == UniformDenoiser()


def test_the_network_is_that_of_the_config():
  network = uniform_network_of(GEMMA)
  assert isinstance(network, CausalEncoder) and network.canvas_length == 4
  assert uniform_network_of(PLAIN, 8) == WholeText(PLAIN.model, 8, mask_id=258)
  assert mtjax.denoiser("gidd", length=24).network(PLAIN).canvas_length == 24
  unmasked = plain(extra_embeddings=0, extra_names=(), noise="uniform")
  assert uniform_network_of(unmasked, 8) == WholeText(unmasked.model, 8)
  masks_unused = plain(noise="uniform")
  assert uniform_network_of(masks_unused, 8).mask_id is None, "its noise had no masks"


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    (dict(length=0), "length must be at least 1, got 0"),
    (dict(steps=0), "steps must be at least 1, got 0"),
    (dict(canvas_length=-1), "canvas_length must be at least 0, got -1"),
    (dict(rule="renoise"), "rule of uniform canvases 'renoise' is not one of: accept_or_renoise"),
    (dict(rule="udlm:noise=1"), "has no setting noise; it has: temperature"),
    (dict(rule="accept_or_renoise:t_min=2"), "t_min must be at most t_max, got 2 and 0.8"),
    (dict(block_length=4), "has no setting block_length; it has: length, canvas_length, steps"),
  ],
)
def test_a_mistake_in_a_setting_is_named(settings, message):
  with pytest.raises(ValueError, match=message):
    mtjax.denoiser("diffusion_gemma", **settings)


METHOD = mtjax.denoiser("diffusion_gemma", length=8, steps=2)


@pytest.mark.parametrize(
  ("model", "settings", "message"),
  [
    (
      MASKS_ALONE,
      {},
      r"masks alone .* denoise it with mtjax.denoiser\('llada'\), 'mdlm'",
    ),
    (
      MASKS_ALONE,
      dict(method=mtjax.denoiser("gidd")),
      "export the run again, or add .noise.",
    ),
    (PLAIN, dict(method=mtjax.denoiser("llada")), r"with hybrid noise .* mtjax.denoiser\('gidd'\)"),
    (plain(noise="uniform"), dict(method=mtjax.denoiser("mdlm")), "trained with uniform noise"),
    (
      plain(predicts="next_token", noise="absorbing"),
      {},
      "need a DiffusionGemma, or .*this model predicts 'next_tok",
    ),
    (plain(alignment="shifted"), {}, r"without blocks\), and this one predicts 'masked', shifted"),
    (GEMMA, dict(method=mtjax.denoiser("llada")), "needs a masked model, .* predicts 'canvas'"),
    (GEMMA, dict(method=UniformDenoiser(canvas_length=8)), "canvas_length must be that of the mod"),
    (GEMMA, dict(method=UniformDenoiser(rule="gidd")), "and the network has no mask"),
    (GEMMA, dict(prompts=["a", ""]), "prompt 1 is empty"),
    (GEMMA, dict(sampling=mtjax.Sampling(temperature=1.0)), "is a setting of their rule"),
  ],
)
def test_what_cannot_be_denoised_is_refused_before_compilation(model, settings, message):
  arguments = dict(prompts=PROMPTS, method=METHOD) | settings
  with pytest.raises(ValueError, match=message):
    model.denoise(arguments.pop("prompts"), **arguments)


def test_it_generates_nothing():
  with pytest.raises(ValueError, match=r"UniformDenoiser\(length=8.* give it to TextModel.denoise"):
    GEMMA.generate(PROMPTS, method=METHOD)
