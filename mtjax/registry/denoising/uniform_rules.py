"""The rules of uniform canvases by name; `mtjax.registry.denoising.rules` has all other rules."""

from mtjax.diffusion.noising.forward import HybridNoise, UniformNoise
from mtjax.diffusion.uniform import AcceptOrRenoise, MixturePosterior, NoisePosterior
from mtjax.registry.denoising.rows import RuleRow

_POSTERIORS = "tests/diffusion/test_uniform_posterior.py"

UNIFORM_RULES: dict[str, RuleRow] = {
  "accept_or_renoise": RuleRow(
    AcceptOrRenoise,
    "sure positions take a sample, all others become noise again, as in DiffusionGemma",
    "DiffusionGemma; 2505.24857",
    config="configs/decode/diffusion_gemma.py",
    test="tests/checkpoints/diffusion/test_diffusion_gemma_canvases.py",
  ),
  "udlm": RuleRow(
    NoisePosterior,
    "every position by its own posterior, for uniform noise",
    "2412.10193",
    fixed=dict(noise=UniformNoise()),
    config="configs/decode/gidd.py",
    test=_POSTERIORS,
  ),
  "gidd": RuleRow(
    NoisePosterior,
    "the same for masks and uniform noise",
    "2503.04482",
    fixed=dict(noise=HybridNoise()),
    config="configs/decode/gidd.py",
    test=_POSTERIORS,
  ),
  "d3pm": RuleRow(
    MixturePosterior,
    "the same for uniform noise and networks that predict clean tokens given the whole canvas",
    "2107.03006",
    fixed=dict(noise=UniformNoise()),
    config="configs/decode/diffusion_gemma.py",
    test=_POSTERIORS,
  ),
}
