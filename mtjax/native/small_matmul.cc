// y = x W for weights in panels (see matmul.py), as an XLA custom call for CPUs.

#include <cstdlib>
#include <vector>

#include "attention.h"
#include "call_frame.h"
#include "digits.h"
#include "kernels.h"
#include "pool.h"

namespace mtjax {
namespace {

// Grows and stays: one for each thread that calls, not one for each call.
template <typename T>
T* Scratch(size_t count) {
  thread_local std::vector<T> memory;
  if (memory.size() < count) memory.resize(count);
  return memory.data();
}

// Calls f(block) for all row blocks of `work` numbers, on all threads if that is faster.
template <typename F>
void ForBlocks(const Blocks& blocks, int64_t work, const F& f) {
  if (work < 65536) {
    for (int64_t b = 0; b < blocks.count; ++b) f(b);
  } else {
    Pool::Get().Run((int)blocks.count, f);
  }
}

// More rows read the weights again: their sums and a section of x stay in the second cache.
constexpr int64_t kPass = 96;

// Row blocks, each transposed: [K, rows of the block]. One row is as it is.
const float* Transposed(const float* x, int64_t K, const Blocks& blocks) {
  if (blocks.M == 1) return x;
  float* transposed = Scratch<float>(blocks.M * K);
  ForBlocks(blocks, blocks.M * K, [&](int64_t b) {
    const int R = blocks.rows(b);
    const float* from = x + blocks.begin(b) * K;
    float* to = transposed + blocks.begin(b) * K;
    for (int64_t k = 0; k < K; ++k)
      for (int r = 0; r < R; ++r) to[k * R + r] = from[r * K + k];
  });
  return transposed;
}

template <typename W>
void Float(const float* x, const typename W::Type* panels, int64_t M, int64_t K, const Target& t) {
  if (M > kPass) {
    Float<W>(x, panels, kPass, K, t);
    return Float<W>(x + kPass * K, panels, M - kPass, K, {t.y + kPass * t.n, t.n, t.scale});
  }
  const Blocks blocks(M, kRows);
  const float* columns = Transposed(x, K, blocks);
  const int64_t halves = (t.n + kHalf - 1) / kHalf, panel = K * kPanel;
  const int chunks =
      Chunks(halves * panel / 2 * sizeof(typename W::Type), (double)M * K * t.n, halves);
  Pool::Get().Run(chunks, [&](int c) {
    alignas(64) float sums[kPass * kPanel];
    const int64_t first = halves * c / chunks, last = halves * (c + 1) / chunks;
    if (M == 1) {
      for (int64_t half = first; half < last;) {
        const bool both = half % 2 == 0 && half + 2 <= last;
        const auto one = both ? OneRow<W, kPanel> : OneRow<W, kHalf>;
        one(panels + half / 2 * panel, x, K, t, half * kHalf);
        half += both ? 2 : 1;
      }
      return;
    }
    for (int64_t half = first, end; half < last; half = end) {
      end = std::min(last, half / 2 * 2 + 2);
      const int from = half % 2 * kHalf, to = from + (int)(end - half) * kHalf;
      Panel<W>(panels + half / 2 * panel, columns, K, blocks, t, half / 2 * kPanel, from, to, sums,
               panels + (last + 1) / 2 * panel);
    }
  });
}

#if MTJAX_DIGITS
// Two panels of this size fit in the second cache: one in use, one on its way.
constexpr int64_t kNear = 384 << 10;

// Runs rows(block, first, last, share) over all row blocks and half panels.
template <typename F>
void ForAll(const Blocks& blocks, const void* panels, int64_t K, int64_t n, int bytes,
            const F& rows) {
  const int64_t halves = (n + kHalf - 1) / kHalf, panel = K * kPanel * bytes;
  const int chunks = Chunks(halves * panel / 2, (double)blocks.M * K * n, halves);
  Pool::Get().Run(chunks, [&](int c) {
    const int64_t first = halves * c / chunks, last = halves * (c + 1) / chunks;
    if (blocks.count == 1) return rows(0, first, last, Share{});
    // A panel stays in the nearest cache while all rows pass over it.
    for (int64_t half = first, end; half < last; half = end) {
      end = std::min(last, half / 2 * 2 + 2);
      const char* next = (const char*)panels + end / 2 * panel;
      for (int64_t b = 0; b < blocks.count; ++b)
        rows(b, half, end, Share{panel <= kNear && end < last ? next : nullptr, b, blocks.count});
    }
  });
}

void Digits(const float* x, const int8_t* panels, int64_t M, int64_t K, const Target& t) {
  const Blocks blocks(M, kDigitRows);
  const int64_t words = (K + 3) / 4 * kGroup;
  int32_t* all = Scratch<int32_t>(M * words);
  DigitRow* rows = Scratch<DigitRow>(M);
  ForBlocks(blocks, M * K, [&](int64_t b) {
    for (int r = 0; r < blocks.rows(b); ++r) {
      const int64_t row = blocks.begin(b) + r;
      rows[row] = ToDigits(x + row * K, K, r, blocks.rows(b), all + blocks.begin(b) * words);
    }
  });
  auto matmul = [&](int64_t b, int64_t first, int64_t last, const Share& share) {
    const int64_t row = blocks.begin(b);
    DigitRows(blocks.rows(b), panels, all + row * words, rows + row, K, t, row, first, last, share);
  };
  ForAll(blocks, panels, K, t.n, 1, matmul);
  for (int64_t row = 0; row < M; ++row)
    if (rows[row].unit < 0) Float<I8>(x + row * K, panels, 1, K, {t.y + row * t.n, t.n, t.scale});
}
#endif

void Int8(const float* x, const int8_t* panels, int64_t M, int64_t K, const Target& t) {
#if MTJAX_DIGITS
  if (K < kDigitK) return Digits(x, panels, M, K, t);
#endif
  Float<I8>(x, panels, M, K, t);
}

// y = x W, or x W[layer] if the panels of several layers are one array: layers, panels, K, 64.
XLA_FFI_Error* Matmul(const XLA_FFI_CallFrame* call) {
  if (call->args.size != 4 || call->rets.size != 1)
    return InvalidArgument(call, "panel_matmul: 4 operands and 1 result are needed");
  const XLA_FFI_Buffer &x = Operand(call, 0), &panels = Operand(call, 1);
  const XLA_FFI_Buffer &scale = Operand(call, 2), &layer = Operand(call, 3), &y = Output(call, 0);
  if (x.dtype != XLA_FFI_DataType_F32 || scale.dtype != XLA_FFI_DataType_F32 ||
      layer.dtype != XLA_FFI_DataType_S32 || y.dtype != XLA_FFI_DataType_F32)
    return InvalidArgument(call, "panel_matmul: x, scale and y must be F32, layer S32");
  if (panels.rank != 3 && panels.rank != 4)
    return InvalidArgument(call, "panel_matmul: panels must have 3 or 4 dimensions");
  const int64_t layers = panels.rank == 4 ? panels.dims[0] : 1;
  const int64_t* shape = panels.dims + panels.rank - 3;
  if (x.rank != 2 || y.rank != 2 || shape[1] != x.dims[1] || shape[2] != kPanel ||
      y.dims[0] != x.dims[0] || y.dims[1] > shape[0] * kPanel || layers < 1 || Count(layer) != 1)
    return InvalidArgument(call, "panel_matmul: shapes do not fit");
  const int64_t M = x.dims[0], K = x.dims[1], n = y.dims[1];
  const bool whole = panels.dtype == XLA_FFI_DataType_S8;
  if (whole && Count(scale) != layers * n)
    return InvalidArgument(call, "panel_matmul: one scale for each output is needed");
  // As XLA's own slices do with an index that is out of range.
  const int64_t at = std::clamp<int64_t>(*(const int32_t*)layer.data, 0, layers - 1);
  const int64_t skipped = at * shape[0] * K * kPanel;
  const Target t = {(float*)y.data, n, whole ? (const float*)scale.data + at * n : nullptr};
  const float* rows = (const float*)x.data;
  if (whole) {
    Int8(rows, (const int8_t*)panels.data + skipped, M, K, t);
  } else if (panels.dtype == XLA_FFI_DataType_BF16) {
    Float<BF16>(rows, (const uint16_t*)panels.data + skipped, M, K, t);
  } else if (panels.dtype == XLA_FFI_DataType_F32) {
    Float<F32>(rows, (const float*)panels.data + skipped, M, K, t);
  } else {
    return InvalidArgument(call, "panel_matmul: weights must be F32, BF16 or S8");
  }
  return nullptr;
}

}  // namespace
}  // namespace mtjax

extern "C" XLA_FFI_Error* mtjax_panel_matmul(XLA_FFI_CallFrame* call) {
  return mtjax::AnswersVersion(call) ? nullptr : mtjax::Matmul(call);
}

extern "C" XLA_FFI_Error* mtjax_attention(XLA_FFI_CallFrame* call) {
  return mtjax::AnswersVersion(call) ? nullptr : mtjax::Attend(call);
}

extern "C" int mtjax_threads() { return mtjax::Pool::Get().threads(); }

extern "C" void mtjax_set_threads(int threads) { mtjax::Pool::Get().set_threads(threads); }

// Reads `bytes` from `data` once, on all threads; without the sum the compiler would drop the
// reads.
extern "C" int64_t mtjax_read(const void* data, int64_t bytes) {
  using namespace mtjax;
  const int chunks = Pool::Get().threads() == 1 ? 1 : 8 * Pool::Get().threads();
  std::atomic<int64_t> total{0};
  Pool::Get().Run(chunks, [&](int c) {
    constexpr int64_t kLine = 8 * sizeof(VI);
    const char* p = (const char*)data + bytes / kLine * c / chunks * kLine;
    const char* end = (const char*)data + bytes / kLine * (c + 1) / chunks * kLine;
    VI sum[8] = {};
    for (; p < end; p += kLine)
      for (int v = 0; v < 8; ++v) sum[v] += Words(p + v * sizeof(VI));
    int64_t all = 0;
    for (int v = 0; v < 8; ++v)
      for (int i = 0; i < kLanes; ++i) all += sum[v][i];
    total += all;
  });
  return total;
}
