"""Handwritten digits: IDX files to patches, and grids of pictures as PNG."""

import dataclasses
import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8

from mtjax.recipes.resgen.data.examples import Examples

_PNG = b"\x89PNG\r\n\x1a\n"


def read_idx(path: Path) -> UInt8[np.ndarray, "..."]:
  """Returns the bytes of an IDX file, gzipped or not, in their shape.

  Raises ValueError, with the file, for another format or a file that is cut off.
  """
  data = path.read_bytes()
  if data[:2] == b"\x1f\x8b":
    data = gzip.decompress(data)
  if len(data) < 4 or data[:3] != b"\x00\x00\x08":
    raise ValueError(f"{path} is no IDX file of bytes: it must begin with 00 00 08")
  rank = data[3]
  shape = struct.unpack(f">{rank}I", data[4 : 4 + 4 * rank]) if len(data) >= 4 + 4 * rank else ()
  body = np.frombuffer(data, np.uint8, offset=min(4 + 4 * rank, len(data)))
  if len(shape) != rank or len(body) != math.prod(shape):
    raise ValueError(f"{path} says shape {shape}, but holds {len(body)} bytes of data")
  return body.reshape(shape)


def write_png(path: Path, grey: UInt8[np.ndarray, "H W"]) -> None:
  """Writes a grey picture; needs no package for pictures."""
  height, width = grey.shape

  def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

  lines = np.concatenate([np.zeros((height, 1), np.uint8), grey.astype(np.uint8)], axis=1)
  head = struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)
  body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines.tobytes(), 9))
  path.write_bytes(_PNG + body + chunk(b"IEND", b""))


def grid(
  groups: list[Float[np.ndarray, "N H W"]], columns: int, *, zoom: int = 1, line: int = 3
) -> UInt8[np.ndarray, "A B"]:
  """Returns pictures of values 0 to 1 in rows of `columns`, with a grey line between the groups."""
  parts = []
  for pictures in groups:
    count, height, width = pictures.shape
    rows = -(-count // columns)
    page = np.zeros((rows * columns, height, width))
    page[:count] = np.clip(pictures, 0, 1)
    page = page.reshape(rows, columns, height, width).swapaxes(1, 2)
    parts.append(page.reshape(rows * height, columns * width))
    parts.append(np.full((line, columns * width), 0.4))
  page = np.concatenate(parts[:-1])
  return np.kron(np.round(page * 255), np.ones((zoom, zoom))).astype(np.uint8)


def to_blocks(images: Float[np.ndarray, "N H W"], side: int) -> Float[np.ndarray, "N L F"]:
  """Returns the side x side patches, left to right and then down.

  Raises ValueError if they do not divide the images.
  """
  count, height, width = images.shape
  if height % side or width % side:
    raise ValueError(f"patches of {side} do not divide images of {height} x {width}")
  rows, columns = height // side, width // side
  x = images.reshape(count, rows, side, columns, side).swapaxes(2, 3)
  return x.reshape(count, rows * columns, side * side)


def to_images(blocks: Float[np.ndarray, "N L F"]) -> Float[np.ndarray, "N H W"]:
  """Returns square images, the inverse of `to_blocks`, of values limited to 0 and 1."""
  count, length, size = blocks.shape
  rows, side = math.isqrt(length), math.isqrt(size)
  x = np.clip(blocks, 0, 1).reshape(count, rows, rows, side, side).swapaxes(2, 3)
  return x.reshape(count, rows * side, rows * side)


@dataclasses.dataclass(frozen=True)
class Digits:
  """MNIST: the last `held_out` images are the test part."""

  train: Examples
  test: Examples

  def judged(self, blocks: Float[np.ndarray, "N L F"]) -> Float[np.ndarray, "N H W"]:
    return to_images(blocks)

  def pictures(self, blocks: Float[np.ndarray, "N L F"]) -> Float[np.ndarray, "N H W"]:
    return to_images(blocks)

  def write(self, folder: Path, name: str, blocks: Float[np.ndarray, "N L F"]) -> list[Path]:
    path = folder / f"{name}.png"
    write_png(path, grid([to_images(blocks)], 10, zoom=2))
    return [path]


def read_digits(folder: Path, *, side: int, held_out: int) -> Digits:
  """Returns the digits of the first *images-idx3-ubyte file of a folder, gzipped or not.

  Raises FileNotFoundError without the file of images or of labels, and ValueError if they do not
  fit each other or there are not more than `held_out` images.
  """
  files = sorted(folder.glob("*images*idx3-ubyte*"))
  if not files:
    raise FileNotFoundError(f"no *images-idx3-ubyte file in {folder}: download MNIST there")
  path = files[0]
  labels = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
  images, label = read_idx(path), read_idx(labels).astype(np.int32)
  if images.ndim != 3 or len(images) != len(label) or len(images) <= held_out:
    raise ValueError(
      f"{path} has the shape {images.shape} and {labels.name} {label.shape}: they need one label "
      f"per image and more than {held_out} images"
    )
  blocks = to_blocks(images.astype(np.float32) / 255, side)
  return Digits(
    _part(blocks, label, slice(-held_out)), _part(blocks, label, slice(-held_out, None))
  )


def _part(blocks: np.ndarray, label: Int[np.ndarray, " N"], rows: slice) -> Examples:
  return Examples(blocks[rows], label[rows])
