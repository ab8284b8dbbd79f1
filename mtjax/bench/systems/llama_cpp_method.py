"""llama.cpp with several tokens per forward pass: `target` of a folder, or its file `target.gguf`.

Drafts are those of llama-cpp-python's prompt lookup. The loop around them is ours, over the C API,
and costs less than that package's own, which copies the logits of every token. The loop takes the
time of the first token: the prompt's forward pass checks no drafts.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mtjax.bench.systems import Run, SystemText, WorkerJob
from mtjax.bench.systems.llama_cpp_ar import gguf_file

_ROOM = 64  # positions beyond a text and its drafts that a context has at least


def open_system(
  folder: str, threads: int, *, weights: str, lookup: Mapping[str, Any] | None = None
) -> Run:
  """Opens the model. `weights`: "file" is the model's own file; others as in `llama_cpp_ar`.

  lookup: arguments of LlamaPromptLookupDecoding; None decodes without drafts.
  """
  import llama_cpp as api
  from llama_cpp.llama_speculative import LlamaPromptLookupDecoding

  path = gguf_file(folder, str(Path(folder) / "target"), weights)
  api.llama_backend_init()
  model = api.llama_model_load_from_file(path.encode(), api.llama_model_default_params())
  if not model:
    raise RuntimeError("llama.cpp refused the model")
  drafter = None if lookup is None else LlamaPromptLookupDecoding(**lookup)
  return _Decoder(api, model, threads, drafter)


class _Decoder:
  def __init__(self, api, model, threads, drafter):
    self._api, self._model, self._threads, self._drafter = api, model, threads, drafter
    self._vocab = api.llama_vocab_n_tokens(api.llama_model_get_vocab(model))
    self._context, self._size = None, 0

  def __call__(self, prompts, job: WorkerJob) -> SystemText:
    tokens, forwards, first_seconds = [], 0, 0.0
    for row, prompt in enumerate(prompts):
      begin = time.perf_counter()
      self._open(len(prompt) + job.tokens + _ROOM)
      rng = np.random.default_rng((job.seed, row))
      new, passes, first = self._continue(list(prompt), job, rng)
      tokens.append(new)
      forwards += passes
      first_seconds += first - begin
    return SystemText(tokens, forwards, None, first_seconds, len(tokens))

  def _continue(self, text: list[int], job: WorkerJob, rng) -> tuple[list[int], int, float]:
    """Returns the new tokens, the number of forward passes, and the moment of the first token."""
    api, start, drafts, passes, first = self._api, len(text), [], 0, 0.0
    memory = api.llama_get_memory(self._context)
    api.llama_memory_clear(memory, True)
    feed, position = text, 0
    while True:
      passes += 1
      for row, logits in enumerate(self._forward(feed, position, len(drafts) + 1)):
        token = _choose(logits, job.temperature, rng)
        text.append(token)
        first = first or time.perf_counter()
        if len(text) - start == job.tokens or token in job.ends:
          return text[start:], passes, first
        if row < len(drafts) and token != drafts[row]:
          break
      position = len(text) - 1
      api.llama_memory_seq_rm(memory, 0, position, -1)
      drafts = []
      if self._drafter is not None:
        left = job.tokens - (len(text) - start) - 1
        drafts = self._drafter(np.array(text, np.intc))[: max(left, 0)].tolist()
      feed = [text[-1], *drafts]

  def _forward(self, tokens: list[int], position: int, rows: int) -> list[np.ndarray]:
    """Returns the logits of the last `rows` of tokens that stand at `position` and after it."""
    api, batch = self._api, self._batch
    batch.n_tokens = len(tokens)
    for index, token in enumerate(tokens):
      batch.token[index], batch.pos[index] = token, position + index
      batch.n_seq_id[index], batch.seq_id[index][0] = 1, 0
      batch.logits[index] = index >= len(tokens) - rows
    if api.llama_decode(self._context, batch):
      raise RuntimeError("llama.cpp could not decode")
    places = range(len(tokens) - rows, len(tokens))
    pointers = [api.llama_get_logits_ith(self._context, place) for place in places]
    return [np.ctypeslib.as_array(pointer, (self._vocab,)) for pointer in pointers]

  def _open(self, size: int) -> None:
    if size <= self._size:
      return
    api = self._api
    if self._context is not None:
      api.llama_batch_free(self._batch)
      api.llama_free(self._context)
    settings = api.llama_context_default_params()
    settings.n_ctx = settings.n_batch = settings.n_ubatch = self._size = size
    settings.n_threads = settings.n_threads_batch = self._threads
    self._context = api.llama_init_from_model(self._model, settings)
    self._batch = api.llama_batch_init(size, 0, 1)


def _choose(logits: np.ndarray, temperature: float, rng: np.random.Generator) -> int:
  """Returns the token of one row of logits: drafts that equal it were right."""
  if not temperature:
    return int(logits.argmax())
  scaled = (logits - logits.max()) / temperature
  weights = np.cumsum(np.exp(scaled, dtype=np.float32), dtype=np.float64)
  return int(np.searchsorted(weights, rng.random() * weights[-1], side="right"))
