"""Denoising of texts: prompts are encoded, canvases denoised and decoded, and seen in progress."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from mtjax.anysubset.canvas import has_query, query_token
from mtjax.data.pieces import encode_pieces
from mtjax.data.streaming import TextStream
from mtjax.data.tokenizers import Tokenizer, pieces_of
from mtjax.diffusion.denoising import (
  Denoised,
  MaskedNetwork,
  denoise,
  denoise_by_blocks,
  stream,
  stream_by_blocks,
)
from mtjax.diffusion.denoising.adaptive import (
  AdaptiveParallel,
  denoise_adaptively,
  stream_adaptively,
)
from mtjax.diffusion.denoising.machines import BlockMachine
from mtjax.diffusion.plan import BlockPlan
from mtjax.diffusion.traces.frames import CanvasFrame, trace_frames
from mtjax.models import Model
from mtjax.models.stacking import Stacks, unrolled, unstack_params
from mtjax.text import Completion, Prompt, TextModel


def network_of(model: TextModel) -> MaskedNetwork:
  """Returns a text model as a network of the denoising loop, with the conventions of its config.

  Raises ValueError for a model that is not masked, for one that was trained with random tokens as
  noise, and for one without a mask.
  """
  config, name = model.model.config, repr(model.name) if model.name else "this model"
  if config.predicts != "masked":
    raise ValueError(
      f"denoising needs a masked model, such as mtjax.load('masked'): {name} predicts "
      f"{config.predicts!r} (config.predicts)"
      + "; its masks are filled with mtjax.denoiser('set')"
      * (config.predicts == "any_subset")
    )
  if config.noise != "absorbing":
    raise ValueError(
      f"{name} was trained with {config.noise} noise (config.noise), in which every token may be a "
      "wrong one, and methods that fill masks never change a token that stands: denoise it with "
      "mtjax.denoiser('gidd') or mtjax.denoiser('diffusion_gemma')"
    )
  return MaskedNetwork.of(model.model)


def with_readable_layers(model: TextModel) -> TextModel:
  """Returns the same model with every layer by itself, for caches that look between them.

  Models that are loaded for decoding have their layers in one scan; this copies their weights.
  """
  stacks = Stacks.of(model.model.config)
  if not stacks.count:
    return model
  params = unstack_params(model.params, stacks)
  return dataclasses.replace(model, model=Model(unrolled(model.model.config)), params=params)


def denoise_texts(
  model: TextModel,
  prompts: Sequence[Prompt],
  *,
  plan: BlockPlan,
  network: MaskedNetwork | None = None,
  on_pass: Callable[[CanvasFrame], None] | None = None,
  **settings: Any,
) -> tuple[list[Completion], Denoised]:
  """Returns the text after each prompt, and what the canvases cost.

  `plan` and settings are those of `mtjax.diffusion.denoising.denoise`. Rows end at the tokens of
  `eos`; None: the tokenizer's end tokens. `network`: the model's conventions, where they are not
  those of `network_of`. `on_pass` is called with the canvases before the first pass and
  after each; the passes are then steps of this process, and without it they are one program. The
  text is the same. With `trace=True` the canvases come after the run, drawn from its trace. A model
  on a mesh (`TextModel.on_mesh`) denoises there.

  A prompt that spells the mask has that text in it, and no mask. Raises ValueError as `denoise`
  and `network_of` do.
  """
  settings |= dict(plan=plan)
  return _texts(model, prompts, plan.length, network, on_pass, denoise, stream, settings)


def denoise_texts_by_blocks(
  model: TextModel,
  prompts: Sequence[Prompt],
  *,
  length: int,
  machine: BlockMachine,
  network: MaskedNetwork | None = None,
  on_pass: Callable[[CanvasFrame], None] | None = None,
  **settings: Any,
) -> tuple[list[Completion], Denoised]:
  """Returns what `denoise_texts` does, by a machine of blocks: `denoise_by_blocks`."""
  settings |= dict(length=length, machine=machine)
  return _texts(
    model, prompts, length, network, on_pass, denoise_by_blocks, stream_by_blocks, settings
  )


def denoise_texts_adaptively(
  model: TextModel,
  prompts: Sequence[Prompt],
  *,
  causal: TextModel,
  length: int,
  rule: AdaptiveParallel,
  network: MaskedNetwork | None = None,
  on_pass: Callable[[CanvasFrame], None] | None = None,
  **settings: Any,
) -> tuple[list[Completion], Denoised]:
  """Returns what `denoise_texts` does, by `denoise_adaptively`.

  Raises ValueError too for a causal model of another tokenizer.
  """
  if causal.tokenizer.fingerprint() != model.tokenizer.fingerprint():
    raise ValueError(
      "the causal model has another tokenizer than the masked one, so neither understands tokens "
      "of the other: give one of the same"
    )
  causal = causal.on_mesh(model.mesh)
  settings |= dict(causal=causal.model, causal_params=causal.params, length=length, rule=rule)
  return _texts(
    model, prompts, length, network, on_pass, denoise_adaptively, stream_adaptively, settings
  )


def _texts(
  model: TextModel,
  prompts: Sequence[Prompt],
  length: int,
  network: MaskedNetwork | None,
  on_pass: Callable[[CanvasFrame], None] | None,
  whole: Callable[..., Denoised],
  stepped: Callable[..., Iterator[tuple[Int[np.ndarray, "B S"], Int[np.ndarray, "B S"]]]],
  settings: Mapping[str, Any],
) -> tuple[list[Completion], Denoised]:
  """Returns texts and their run, by one program (`whole`), or `stepped` where passes are seen."""
  network = network or network_of(model)
  tokenizer = model.tokenizer
  ids = [without_mask(tokenizer, prompt, network.mask_id) for prompt in prompts]
  eos = model.end_tokens(settings.get("eos"))
  arguments: dict[str, Any] = dict(mesh=model.mesh, **dict(settings, eos=eos))
  is_traced = arguments.pop("trace", False)
  if on_pass is None or is_traced:
    run = whole(network, model.params, ids, trace=is_traced, **arguments)
    show_trace(run, ids, length, on_pass)
  else:
    results: list[Denoised] = []
    states = stepped(network, model.params, ids, on_finish=results.append, **arguments)
    for frame in canvas_frames(states, ids, length, network.mask_id):
      on_pass(frame)
    (run,) = results
  rows = zip(prompts, run.tokens, strict=True)
  return [completion_of(tokenizer, prompt, tokens, eos) for prompt, tokens in rows], run


def show_trace(
  run: Denoised,
  prompts: Sequence[Sequence[int]],
  length: int,
  on_pass: Callable[[CanvasFrame], None] | None,
) -> None:
  """Calls `on_pass`, if there is one, with the canvases of a run that has a trace."""
  if on_pass is not None and run.trace is not None:
    for frame in trace_frames(run.trace, prompts, length):
      on_pass(frame)


def prompt_ids(model: TextModel, prompts: Sequence[Prompt]) -> list[list[int]]:
  """Returns the tokens of prompts as they stand before a canvas, where a mask's spelling is text.

  The masks of an any-subset model are its queries. Raises ValueError as `without_mask` does.
  """
  config, tokenizer = model.model.config, model.tokenizer
  if config.predicts == "any_subset" and has_query(config):
    mask = query_token(config)
  else:
    mask = config.special_id("mask") if "mask" in config.extra_names else config.mask_id
  if mask is None:
    return [tokenizer.encode(one) if isinstance(one, str) else list(one) for one in prompts]
  return [without_mask(tokenizer, one, mask) for one in prompts]


def without_mask(tokenizer: Tokenizer, prompt: Prompt, mask_id: int) -> list[int]:
  """Returns the tokens of a prompt, where a mask becomes the tokens of the text that spells it.

  Masks that are tokens of the vocabulary have a spelling, which a user's text may contain. Raises
  ValueError where the tokenizer reads that spelling as a mask in any text.
  """
  ids = tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)
  if mask_id not in ids:
    return ids
  names = {token: text for text, token in tokenizer.special_tokens().items()}
  spelling = names.get(mask_id) or pieces_of(tokenizer, [mask_id])[0].decode("utf-8", "replace")
  plain = encode_pieces(tokenizer, ["", spelling])[1]
  if mask_id in plain:
    raise ValueError(
      f"a prompt spells the mask, {spelling!r}, which this tokenizer cannot read as plain text: "
      "leave it out"
    )
  return [token for each in ids for token in (plain if each == mask_id else [each])]


def canvas_frames(
  states: Iterator[tuple[Int[np.ndarray, "B S"], Int[np.ndarray, "B S"]]],
  prompts: Sequence[Sequence[int]],
  length: int,
  mask_id: int,
) -> Iterator[CanvasFrame]:
  """Yields the canvases without prompts, without entries after `length`, None for each mask."""
  here = [slice(len(prompt), len(prompt) + length) for prompt in prompts]
  for number, (token, decided_at) in enumerate(states):
    yield CanvasFrame(
      number,
      [
        [None if one == mask_id else one for one in token[row, each].tolist()]
        for row, each in enumerate(here)
      ],
      [decided_at[row, each].tolist() for row, each in enumerate(here)],
    )


def completion_of(
  tokenizer: Tokenizer, prompt: Prompt, tokens: list[int], eos: Sequence[int]
) -> Completion:
  """Returns the text of the tokens that came after a prompt, the end token among them, if any."""
  text = TextStream(tokenizer)
  shown = prompt if isinstance(prompt, str) else tokenizer.decode(prompt)
  finish = "eos" if tokens and tokens[-1] in eos else "length"
  return Completion(shown, text.feed(tokens) + text.finish(), tokens, finish)
