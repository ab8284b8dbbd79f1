"""Models that complete texts, for launchers and notebooks."""

import contextlib
import dataclasses
from collections.abc import Callable, Generator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jax.sharding import Mesh

from mtjax.arguments import texts
from mtjax.data.streaming import TextStream
from mtjax.data.tokenizers import Tokenizer
from mtjax.decode import generation as decode
from mtjax.decode.generation import Generation
from mtjax.decode.method import Method
from mtjax.display.cards import card
from mtjax.display.short import clipped, megabytes, rounded
from mtjax.models import Model, Params, describe_network, summarize_weights
from mtjax.models.quantize import is_packed
from mtjax.rounds.stop_strings import StopStrings
from mtjax.sampling.logits import Sampling
from mtjax.sharding import AXES, MeshLike, describe_mesh, mesh_of, parse_mesh, shard_params


@runtime_checkable
class MethodForTarget(Protocol):
  """A method that is made once its target is known, as `mtjax.method` returns it."""

  def bind(
    self, target: "TextModel", *, rows: int = 1, sampling: Sampling | None = None, tokens: int = 0
  ) -> tuple[Method, Params | None]:
    """Returns the method, and its parameters, as `mtjax.decode.generate` takes them.

    rows: the number of prompts. sampling: of the request; None: greedy. tokens: the largest number
    of tokens that a row may have at the end.
    """
    ...


Prompt = str | Sequence[int]  # a text, or token ids as `Tokenizer.encode_chat` returns them


@runtime_checkable
class CanvasMethod(Protocol):
  """A method that turns canvases into text, as `mtjax.denoiser` returns it."""

  def denoise(
    self, target: "TextModel", prompts: Sequence[Prompt], **settings: Any
  ) -> tuple[list["Completion"], Any]:
    """Returns the texts after the prompts, and the run that they come from."""
    ...


@dataclasses.dataclass(frozen=True)
class Completion:
  """The continuation of a prompt: its text ends before a stop string or the end token."""

  prompt: str
  text: str
  tokens: list[int]
  finish: str

  def __repr__(self) -> str:
    return (
      f"Completion({clipped(self.prompt)!r} -> {clipped(self.text)!r}, "
      f"{len(self.tokens)} tokens, finish {self.finish!r})"
    )


@dataclasses.dataclass(frozen=True)
class TextModel:
  """A model with its parameters and tokenizer, and the name that it was loaded by, if any."""

  model: Model
  params: Params
  tokenizer: Tokenizer
  name: str = ""
  # Devices that the parameters are split over, and that decoding uses. None: the mesh of this
  # process that the parameters are on, if any.
  mesh: Mesh | None = None
  _on_others: dict[Mesh, "TextModel"] = dataclasses.field(
    default_factory=dict, init=False, repr=False, compare=False
  )

  def __post_init__(self):
    mesh = mesh_of(self.params)
    if self.mesh is None and mesh is not None and not mesh.is_multi_process:
      if set(mesh.axis_names) == set(AXES):
        object.__setattr__(self, "mesh", mesh)

  def __repr__(self) -> str:
    network = describe_network(self.model.config)
    name = f"{self.name!r}, " if self.name else ""
    return f"TextModel({name}{network}: {summarize_weights(self.model, self.params)})"

  def _repr_html_(self) -> str:
    """Returns a card of the network and its weights."""
    config, weights = self.model.config, summarize_weights(self.model, self.params)
    return card(
      self.name or "TextModel",
      [
        ("layers", f"{len(config.layers)} x {config.dim}"),
        ("heads", f"{config.heads} of {config.head_dim}, {config.kv_heads} key/value"),
        ("vocabulary", f"{config.vocab_size:,}"),
        ("positions", f"{config.max_position:,}"),
        ("predicts", config.predicts),
        ("parameters", rounded(weights.parameters)),
        ("weights", " and ".join(weights.dtypes)),
        ("memory", megabytes(weights.nbytes)),
      ],
    )

  def on_mesh(self, mesh: MeshLike) -> "TextModel":
    """Returns the model with its parameters split over a mesh, which its decoding uses.

    `mesh` is what `mtjax.sharding.parse_mesh` takes; None leaves the model as it is. The result is
    kept for the next call. Raises ValueError for parameters that are packed for one CPU (load the
    model with `mesh`), and for a mesh that does not exist here.
    """
    devices = parse_mesh(mesh)
    if devices is None or devices == self.mesh:
      return self
    if devices not in self._on_others:
      if is_packed(self.params):
        raise ValueError(
          "the weights of this model are packed for one CPU and cannot be split over a mesh: load "
          f"it as mtjax.load({self.name!r}, mesh={describe_mesh(devices)!r})"
        )
      params = shard_params(self.params, devices)
      self._on_others[devices] = dataclasses.replace(self, params=params, mesh=devices)
    return self._on_others[devices]

  def generate(
    self,
    prompts: str | Sequence[Prompt],
    *,
    stop: str | Sequence[str] = (),
    mesh: MeshLike = None,
    **settings: Any,
  ) -> tuple[list[Completion], Generation]:
    """Completes each prompt; settings are those of `mtjax.decode.generate`.

    `mesh`: None is that of the model, if it has one; with another the parameters are copied there
    once (`on_mesh`).

    `method` may also be one by name, `mtjax.method("lookup", length=8)`. One text in place of
    several, as a prompt or a stop string, is a list of one. Rows end at the tokenizer's end tokens
    unless `eos` is set. Returns the completions and the generation that they come from. Raises
    ValueError as `generate` does, for a prompt without tokens, and for a stop string that is no
    text.
    """
    if (there := self.on_mesh(mesh)) is not self:
      return there.generate(prompts, stop=stop, **settings)
    prompts, stop = texts(prompts), _stop_strings(stop)
    arguments = self._arguments(prompts, stop, settings)
    generation = decode.generate(self.model, self.params, mesh=self.mesh, **arguments)
    return self._finished(prompts, stop, generation)

  def denoise(
    self,
    prompts: str | Sequence[Prompt],
    *,
    method: CanvasMethod,
    mesh: MeshLike = None,
    **settings: Any,
  ) -> tuple[list[Completion], Any]:
    """Continues each prompt with canvases that become text; for models that denoise.

    They are masked models, models of uniform noise and, with `mtjax.denoiser("set")`, any-subset
    models.

    Example: `model.denoise(prompts, method=mtjax.denoiser("llada", length=64, steps=32))`.

    Settings are those of `mtjax.diffusion.texts.denoise_texts`, and for uniform canvases those of
    `mtjax.diffusion.uniform.texts`: `sampling`, `key`, and `on_pass`, which is called with the
    canvases after each pass. `mesh` and `eos` are those of `generate`. One text in place of several
    is a list of one. Returns the completions and the `Denoised` that they come from. Raises
    ValueError for a model that does not denoise so, for settings that do not fit it, and for a
    prompt without tokens.
    """
    if isinstance(method, str):
      raise ValueError(f"method is the text {method!r}: give mtjax.denoiser({method!r})")
    if not isinstance(method, CanvasMethod):
      raise ValueError(f"{method!r} denoises no canvas: give mtjax.denoiser(NAME)")
    prompts = texts(prompts)
    _check_prompts(prompts)
    return method.denoise(self.on_mesh(mesh), prompts, **settings)

  def stream(
    self,
    prompts: str | Sequence[Prompt],
    *,
    stop: str | Sequence[str] = (),
    on_finish: Callable[[list[Completion], Generation], None] | None = None,
    mesh: MeshLike = None,
    **settings: Any,
  ) -> Generator[list[str]]:
    """Yields the text of `generate` in pieces: what is new in each row, whole characters only.

    Text that may be the beginning of a stop string is held back until it is known not to be. At the
    end `on_finish` is called with what `generate` returns.
    """
    if (there := self.on_mesh(mesh)) is not self:
      return there.stream(prompts, stop=stop, on_finish=on_finish, **settings)
    prompts, stop = texts(prompts), _stop_strings(stop)
    arguments = self._arguments(prompts, stop, settings)

    def finished(generation):
      if on_finish is not None:
        on_finish(*self._finished(prompts, stop, generation))

    rounds = decode.stream(self.model, self.params, on_finish=finished, mesh=self.mesh, **arguments)
    return self._pieces(rounds, [TextStream(self.tokenizer, stop) for _ in prompts])

  def end_tokens(self, eos: Sequence[int] | None = None) -> list[int]:
    """Returns the tokens that end a row: `eos`, or, for None, those of the tokenizer.

    A tokenizer may have end tokens that the model lacks, and so can never write: they are left out.
    Raises ValueError for tokens of `eos` outside the vocabulary.
    """
    vocab = self.model.config.vocab_size
    if eos is None:
      return [token for token in self.tokenizer.eos_ids if token < vocab]
    if outside := [token for token in eos if not 0 <= token < vocab]:
      raise ValueError(f"eos names tokens {outside} outside a vocabulary of {vocab}")
    return list(eos)

  def _pieces(self, rounds, rows: list[TextStream]) -> Generator[list[str]]:
    with contextlib.closing(rounds):
      for new in rounds:
        pieces = [row.feed(tokens) for row, tokens in zip(rows, new, strict=True)]
        if any(pieces):
          yield pieces
    rest = [row.finish() for row in rows]
    if any(rest):
      yield rest

  def _arguments(self, prompts, stop, settings) -> dict:
    encode = self.tokenizer.encode
    _check_prompts(prompts)
    ids = [encode(prompt) if isinstance(prompt, str) else prompt for prompt in prompts]
    automaton = None
    if stop:
      tokenizer = self.tokenizer
      automaton = StopStrings.compile(stop, tokenizer.token_bytes(), tokenizer.special_tokens())
    eos = self.end_tokens()
    return {"prompts": ids, "stop": automaton, "eos": eos, **self._bound(settings, ids)}

  def _bound(self, settings: dict[str, Any], ids: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Returns the settings with a method for this model in place of one that needs a target."""
    method = settings.get("method")
    if isinstance(method, str):
      raise ValueError(f"method is the text {method!r}: give mtjax.method({method!r})")
    if isinstance(method, CanvasMethod):
      raise ValueError(f"{method!r} denoises canvases: give it to TextModel.denoise")
    if not isinstance(method, MethodForTarget):
      return settings
    if settings.get("method_params") is not None:
      raise ValueError(f"{method!r} brings its own parameters: leave method_params out")
    new = settings.get("max_tokens", decode.MAX_TOKENS)
    tokens = max(map(len, ids), default=0) + int(np.max(new))
    method, params = method.bind(
      self, rows=len(ids), sampling=settings.get("sampling"), tokens=tokens
    )
    return {**settings, "method": method, "method_params": params}

  def _finished(self, prompts, stop, generation) -> tuple[list[Completion], Generation]:
    pieces = []
    for ids in generation.tokens:
      stream = TextStream(self.tokenizer)
      row = [stream.feed([token]) for token in ids]
      row[-1] += stream.finish()
      pieces.append(row)
    completions = self._completions(prompts, stop, generation)
    return completions, dataclasses.replace(generation, pieces=pieces)

  def _completions(self, prompts, stop, generation) -> list[Completion]:
    out = []
    for prompt, ids, finish in zip(prompts, generation.tokens, generation.finish, strict=True):
      row = TextStream(self.tokenizer, stop)
      text = row.feed(ids) + row.finish()
      shown = prompt if isinstance(prompt, str) else self.tokenizer.decode(prompt)
      out.append(Completion(shown, text, ids, finish))
    return out


def _check_prompts(prompts: Sequence[Any]) -> None:
  for row, prompt in enumerate(prompts):
    if isinstance(prompt, bytes):
      raise ValueError(f"prompt {row} is bytes: a prompt is a text or a list of token ids")


def _stop_strings(stop: str | Sequence[str]) -> list[str]:
  words = texts(stop)
  for word in words:
    if not isinstance(word, str):
      raise ValueError(f"stop strings are texts, got {word!r}")
  return words
