"""FlexAttention of torch on the same inputs, with the same mask of intervals, timed by CUDA."""

import importlib.util
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

_LEAST_MILLISECONDS, _MOST = 50, 400  # of what is timed


def why_not() -> str | None:
  """Why it cannot be timed here; None: it can."""
  if importlib.util.find_spec("torch") is None:
    return "torch is not installed"
  import torch

  return None if torch.cuda.is_available() else "torch sees no CUDA device"


def tensors(given: dict, device: str) -> dict[str, Any]:
  """q [B, H, T, D], k and v [B, G, S + T, D], and the labels, as torch's."""
  import torch

  def of(x):
    wide = torch.from_numpy(np.array(x, np.float32))
    return wide.to(device, getattr(torch, x.dtype.name))

  found = {"q": of(given["q"].swapaxes(1, 2))}
  for name in "kv":
    parts = [given[f"cache_{name}"], given[name]]
    found[name] = torch.cat([of(x) for x in parts if x is not None], dim=2)
  for name in ("stamp", "lo", "hi", "lengths"):
    if given[name] is not None:
      found[name] = torch.from_numpy(np.array(given[name], np.int32)).to(device)
  return found


def mask_of(given: dict[str, Any]) -> Callable[..., Any]:
  """`mask_mod`: a slot is seen if it is filled, a fresh key by its interval in every dimension."""
  import torch

  stamp, lo, hi, lengths = (given.get(name) for name in ("stamp", "lo", "hi", "lengths"))
  slots = given["k"].shape[2] - stamp.shape[2]

  def mask_mod(row, head, query, key):
    fresh = torch.clamp(key - slots, min=0)
    seen = key >= slots
    for dim in range(stamp.shape[1]):
      point = stamp[row, dim, query]
      seen = seen & (lo[row, dim, fresh] <= point) & (point < hi[row, dim, fresh])
    return seen if lengths is None else seen | (key < torch.clamp(lengths[row], max=slots))

  return mask_mod


def block_mask(given: dict[str, Any]) -> Any:
  from torch.nn.attention.flex_attention import create_block_mask

  (rows, _, entries, _), keys = given["q"].shape, given["k"].shape[2]
  device = given["q"].device.type
  return create_block_mask(mask_of(given), rows, None, entries, keys, device=device)


def attend(given: dict[str, Any], blocks: Any, function: Callable[..., Any] | None = None) -> Any:
  """Output [B, T, H, D]; function: a compiled `flex_attention`."""
  from torch.nn.attention.flex_attention import flex_attention

  function = function or flex_attention
  q, k, v = (given[name] for name in "qkv")
  grouped = q.shape[1] != k.shape[1]
  return function(q, k, v, block_mask=blocks, enable_gqa=grouped).transpose(1, 2)


def measured(layers: Sequence[dict], gradient: bool, rounds: int) -> tuple[np.ndarray, float]:
  """The first one's output, and seconds of a call forward, or forward and backward.

  Layers are taken in turn; the mask, which they share, is made once.
  """
  import torch
  from torch.nn.attention.flex_attention import flex_attention

  own = [tensors(jax.block_until_ready(given), "cuda") for given in layers]
  blocks = block_mask(own[0])
  compiled = torch.compile(flex_attention, dynamic=False)
  leaves = [[given[name].requires_grad_(gradient) for name in "qkv"] for given in own]

  def call(index):
    out = attend(own[index], blocks, compiled)
    if gradient:
      torch.autograd.grad(out, leaves[index], out.detach())
    return out

  def milliseconds(count):
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for turn in range(count):
      call(turn % len(own))
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end)

  out = call(0).detach().float().cpu().numpy()
  milliseconds(3)  # what is compiled and tuned at the first calls
  count = int(min(max(_LEAST_MILLISECONDS / (milliseconds(3) / 3), 1), _MOST))
  seconds = statistics.median(milliseconds(count) for _ in range(rounds)) / count / 1e3
  return out, seconds
