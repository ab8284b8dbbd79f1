"""Texts by uniform canvases: prompts are encoded, and canvases become texts, seen in progress."""

from collections.abc import Callable, Sequence
from typing import Any

from mtjax.diffusion.denoising.result import Denoised
from mtjax.diffusion.texts import canvas_frames, completion_of, prompt_ids, show_trace
from mtjax.diffusion.traces.frames import CanvasFrame
from mtjax.diffusion.uniform.causal_encoder import CausalEncoder
from mtjax.diffusion.uniform.network import UniformNetwork
from mtjax.diffusion.uniform.run import NOT_YET, denoise_uniform, stream_uniform
from mtjax.diffusion.uniform.whole_text import WholeText
from mtjax.text import Completion, Prompt, TextModel


def uniform_network_of(
  model: TextModel, canvas_length: int = 0, *, otherwise: int = 256
) -> UniformNetwork:
  """Returns a text model as a network of uniform canvases, with the conventions of its config.

  A DiffusionGemma has a causal encoder, and the canvases of its config; a bidirectional model
  computes the whole text, and has canvases of `canvas_length` positions (0: `otherwise`). Raises
  ValueError for other models, for one that was trained with masks alone (`noise` of its config),
  and for another `canvas_length` than a DiffusionGemma's.
  """
  config, name = model.model.config, repr(model.name) if model.name else "this model"
  if config.predicts == "masked":
    if config.noise == "absorbing":
      raise ValueError(
        f"{name} was trained with masks alone (config.noise 'absorbing'), and this method begins "
        "with random tokens, which it takes for text: denoise it with mtjax.denoiser('llada'), "
        "'mdlm', 'fast_dllm' or another method for masked models, or train one with the objective "
        "uniform_diffusion. If it was trained so, and its folder is from before folders said so, "
        'export the run again, or add "noise": "hybrid" (or "uniform") to its config.json'
      )
    return WholeText.of(model.model, canvas_length or otherwise)
  if config.predicts != "canvas":
    raise ValueError(
      "uniform canvases need a DiffusionGemma, or a bidirectional model that was trained with the "
      f"objective uniform_diffusion: {name} predicts {config.predicts!r} (config.predicts)"
    )
  network = CausalEncoder(model.model)
  if canvas_length not in (0, network.canvas_length):
    raise ValueError(
      f"canvas_length must be that of the model, {network.canvas_length}, or 0: got {canvas_length}"
    )
  return network


def denoise_uniform_texts(
  model: TextModel,
  prompts: Sequence[Prompt],
  *,
  network: UniformNetwork,
  length: int,
  on_pass: Callable[[CanvasFrame], None] | None = None,
  **settings: Any,
) -> tuple[list[Completion], Denoised]:
  """Returns the text after each prompt, and what the canvases cost.

  Settings are those of `denoise_uniform`; rows end at the tokens of `eos`; None: the
  tokenizer's end tokens. `on_pass` is called with the texts before the first pass and after each,
  where a canvas in progress shows what it would be if it ended now; the passes are then steps of
  this process. The text is the same. With `trace=True` they come after the run, drawn from its
  trace. Raises ValueError as `denoise_uniform` does.
  """
  tokenizer = model.tokenizer
  ids = prompt_ids(model, prompts)
  eos = model.end_tokens(settings.get("eos"))
  arguments: dict[str, Any] = dict(length=length, mesh=model.mesh, **dict(settings, eos=eos))
  is_traced = arguments.pop("trace", False)
  if on_pass is None or is_traced:
    run = denoise_uniform(network, model.params, ids, trace=is_traced, **arguments)
    show_trace(run, ids, length, on_pass)
  else:
    results: list[Denoised] = []
    states = stream_uniform(network, model.params, ids, on_finish=results.append, **arguments)
    for frame in canvas_frames(states, ids, length, NOT_YET):
      on_pass(frame)
    (run,) = results
  rows = zip(prompts, run.tokens, strict=True)
  return [completion_of(tokenizer, prompt, tokens, eos) for prompt, tokens in rows], run
