"""FlexAttention of torch on the same inputs, with the same mask of intervals, timed by CUDA."""

import importlib.util
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

_MIN_MILLISECONDS, _MAX_CALLS = 50, 400  # limits of a timed run


def why_not() -> str | None:
  """Returns why it cannot be timed here; None: it can."""
  if importlib.util.find_spec("torch") is None:
    return "torch is not installed"
  import torch

  return None if torch.cuda.is_available() else "torch sees no CUDA device"


def tensors(arguments: dict, device: str) -> dict[str, Any]:
  """Returns q [B, H, T, D], k and v [B, G, S + T, D] and the labels as torch tensors."""
  import torch

  def of(x):
    wide = torch.from_numpy(np.array(x, np.float32))
    return wide.to(device, getattr(torch, x.dtype.name))

  result = {"q": of(arguments["q"].swapaxes(1, 2))}
  for name in "kv":
    parts = [arguments[f"cache_{name}"], arguments[name]]
    result[name] = torch.cat([of(x) for x in parts if x is not None], dim=2)
  for name in ("stamp", "lo", "hi", "lengths"):
    if arguments[name] is not None:
      result[name] = torch.from_numpy(np.array(arguments[name], np.int32)).to(device)
  return result


def mask_of(arguments: dict[str, Any]) -> Callable[..., Any]:
  """Returns `mask_mod`: a filled slot is seen, a fresh key by its interval in every dimension."""
  import torch

  stamp, lo, hi, lengths = (arguments.get(name) for name in ("stamp", "lo", "hi", "lengths"))
  slots = arguments["k"].shape[2] - stamp.shape[2]

  def mask_mod(row, head, query, key):
    fresh = torch.clamp(key - slots, min=0)
    seen = key >= slots
    for dim in range(stamp.shape[1]):
      point = stamp[row, dim, query]
      seen = seen & (lo[row, dim, fresh] <= point) & (point < hi[row, dim, fresh])
    return seen if lengths is None else seen | (key < torch.clamp(lengths[row], max=slots))

  return mask_mod


def block_mask(arguments: dict[str, Any]) -> Any:
  from torch.nn.attention.flex_attention import create_block_mask

  (rows, _, entries, _), keys = arguments["q"].shape, arguments["k"].shape[2]
  device = arguments["q"].device.type
  return create_block_mask(mask_of(arguments), rows, None, entries, keys, device=device)


def attend(
  arguments: dict[str, Any], blocks: Any, function: Callable[..., Any] | None = None
) -> Any:
  """Returns the output [B, T, H, D]; function: a compiled `flex_attention`."""
  from torch.nn.attention.flex_attention import flex_attention

  function = function or flex_attention
  q, k, v = (arguments[name] for name in "qkv")
  grouped = q.shape[1] != k.shape[1]
  return function(q, k, v, block_mask=blocks, enable_gqa=grouped).transpose(1, 2)


def measured(layers: Sequence[dict], gradient: bool, rounds: int) -> tuple[np.ndarray, float]:
  """Returns the first layer's output, and seconds per call forward, or forward and backward.

  Layers are used in turn; the mask, which they share, is made once.
  """
  import torch
  from torch.nn.attention.flex_attention import flex_attention

  own = [tensors(jax.block_until_ready(arguments), "cuda") for arguments in layers]
  blocks = block_mask(own[0])
  compiled = torch.compile(flex_attention, dynamic=False)
  leaves = [[arguments[name].requires_grad_(gradient) for name in "qkv"] for arguments in own]

  def call(index):
    out = attend(own[index], blocks, compiled)
    if gradient:
      torch.autograd.grad(out, leaves[index], out.detach())
    return out

  def milliseconds(count):
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for index in range(count):
      call(index % len(own))
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end)

  out = call(0).detach().float().cpu().numpy()
  milliseconds(3)  # the first calls compile and tune
  count = int(min(max(_MIN_MILLISECONDS / (milliseconds(3) / 3), 1), _MAX_CALLS))
  seconds = statistics.median(milliseconds(count) for _ in range(rounds)) / count / 1e3
  return out, seconds
