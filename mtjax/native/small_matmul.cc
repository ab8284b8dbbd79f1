// y = x W for weights in panels (see matmul.py), as an XLA custom call for CPUs.

#include <cstdlib>
#include <vector>

#include "attention.h"
#include "call_frame.h"
#include "fixed_point.h"
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

// Calls part(first, last) for the half panels [first, last) of each thread.
template <typename F>
void ForHalves(int64_t M, int64_t K, int64_t n, size_t bytes, const F& part) {
  const int64_t halves = (n + kHalf - 1) / kHalf;
  const int chunks = Chunks(halves * K * kHalf * bytes, (double)M * K * n, halves);
  Pool::Get().Run(chunks, [&](int c) { part(halves * c / chunks, halves * (c + 1) / chunks); });
}

// Calls both(half) for whole panels among half panels [first, last), one(half) for other halves.
template <typename F, typename G>
void ForPanels(int64_t first, int64_t last, const F& both, const G& one) {
  for (int64_t half = first; half < last;) {
    const bool whole = half % 2 == 0 && half + 2 <= last;
    whole ? both(half) : one(half);
    half += whole ? 2 : 1;
  }
}

// Calls panel(number, from, to, end) for outputs [from, to) of each panel among half panels
// [first, last); end: number of the panel behind them.
template <typename F>
void ForParts(int64_t first, int64_t last, const F& panel) {
  for (int64_t half = first, end; half < last; half = end) {
    end = std::min(last, half / 2 * 2 + 2);
    const int from = half % 2 * kHalf;
    panel(half / 2, from, from + (int)(end - half) * kHalf, (last + 1) / 2);
  }
}

template <typename W>
void FloatRow(const float* x, const typename W::Type* panels, int64_t K, const Target& t) {
  const int64_t panel = K * kPanel;
  ForHalves(1, K, t.n, sizeof(typename W::Type), [&](int64_t first, int64_t last) {
    const auto one = [&](auto run) {
      return [&, run](int64_t half) { run(panels + half / 2 * panel, x, K, t, half * kHalf); };
    };
    ForPanels(first, last, one(OneRow<W, kPanel>), one(OneRow<W, kHalf>));
  });
}

template <typename W>
void Float(const float* x, const typename W::Type* panels, int64_t M, int64_t K, const Target& t) {
  if (M == 1) return FloatRow<W>(x, panels, K, t);
  if (M > kPass) {
    Float<W>(x, panels, kPass, K, t);
    return Float<W>(x + kPass * K, panels, M - kPass, K, {t.y + kPass * t.n, t.n, t.scale});
  }
  const Blocks blocks(M, kRows);
  const int64_t panel = K * kPanel;
  ForHalves(M, K, t.n, sizeof(typename W::Type), [&](int64_t first, int64_t last) {
    alignas(64) float sums[kPass * kPanel];
    ForParts(first, last, [&](int64_t number, int from, int to, int64_t end) {
      Panel<W>(panels + number * panel, x, K, blocks, t, number * kPanel, from, to, sums,
               panels + end * panel);
    });
  });
}

void Int8(const float* x, const int8_t* panels, int64_t M, int64_t K, const Target& t) {
  if (M > kPass) {
    Int8(x, panels, kPass, K, t);
    return Int8(x + kPass * K, panels, M - kPass, K, {t.y + kPass * t.n, t.n, t.scale});
  }
  const Blocks blocks(M, kMaxFixedRows);
  const int64_t whole = K - K % 4, panel = K * kPanel;
  int16_t* integers = Scratch<int16_t>(M * whole);
  float* units = Scratch<float>(M * Groups(whole));
  bool fits[kPass];
  ForBlocks(blocks, M * K, [&](int64_t b) {
    const int64_t first = blocks.begin(b);
    const int R = blocks.rows(b);
    for (int r = 0; r < R; ++r)
      fits[first + r] = ToFixed(x + (first + r) * K, whole, r, R, integers + first * whole,
                                units + first * Groups(whole));
  });
  const Fixed fixed = {integers, units};
  ForHalves(M, K, t.n, 1, [&](int64_t first, int64_t last) {
    if (M == 1) {
      const auto one = [&](auto run) {
        return [&, run](int64_t half) {
          run(panels + half / 2 * panel, x, fixed, K, t, half * kHalf);
        };
      };
      return ForPanels(first, last, one(FixedRow<kPanel>), one(FixedRow<kHalf>));
    }
    alignas(64) float sums[kPass * kPanel];
    ForParts(first, last, [&](int64_t number, int from, int to, int64_t end) {
      FixedPanel(panels + number * panel, x, fixed, K, blocks, t, number * kPanel, from, to, sums,
                 panels + end * panel);
    });
  });
  for (int64_t row = 0; row < M; ++row)
    if (!fits[row]) FloatRow<I8>(x + row * K, panels, K, {t.y + row * t.n, t.n, t.scale});
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
