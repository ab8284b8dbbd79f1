// Inner loops over weights in panels of 64 outputs: each weight is read once, in order, and meets R
// rows of x while it is in a register.
//
// Every output is one chain of fused multiply-adds over k in order (or one exact integer sum), so a
// row's result does not depend on how many rows or threads there are.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace mtjax {

constexpr int kPanel = 64;
constexpr int kHalf = kPanel / 2;  // the unit of sharing: N = 320 splits evenly

// The sums of R rows by Columns(R) outputs, and what they meet, fit in the vector registers.
#if defined(__AVX512F__)
constexpr int kLanes = 16, kRows = 6;
constexpr int Columns(int) { return kPanel; }
#elif defined(__AVX__)
constexpr int kLanes = 8, kRows = 5;
constexpr int Columns(int rows) { return rows == 1 ? kPanel : rows == 2 ? kHalf : kHalf / 2; }
#else
constexpr int kLanes = 4, kRows = 3;
constexpr int Columns(int rows) { return rows == 1 ? kPanel : kHalf; }
#endif

typedef float VF __attribute__((vector_size(kLanes * 4)));
typedef int32_t VI __attribute__((vector_size(kLanes * 4)));
typedef float VFu __attribute__((vector_size(kLanes * 4), aligned(4), may_alias));
typedef int32_t VIu __attribute__((vector_size(kLanes * 4), aligned(1), may_alias));

inline VI Words(const void* p) { return *static_cast<const VIu*>(p); }

// A type of stored weight: kStep consecutive k of one output share a 32-bit word.
struct F32 {
  using Type = float;
  static constexpr int kStep = 1;
  template <int S>
  static VF Decode(VI word) {
    return (VF)word;
  }
  static float Scalar(Type w) { return w; }
};

struct BF16 {
  using Type = uint16_t;
  static constexpr int kStep = 2;
  template <int S>
  static VF Decode(VI word) {
    return (VF)(S == 0 ? word << 16 : word & (int32_t)0xffff0000);
  }
  static float Scalar(Type w) {
    const uint32_t bits = (uint32_t)w << 16;
    float f;
    std::memcpy(&f, &bits, 4);
    return f;
  }
};

struct I8 {
  using Type = int8_t;
  static constexpr int kStep = 4;
  template <int S>
  static VF Decode(VI word) {
    return __builtin_convertvector((word << (24 - 8 * S)) >> 24, VF);
  }
  static float Scalar(Type w) { return w; }
};

// Where results are written: y[row * n + column], columns below n only, times scale if there is one.
struct Target {
  float* y;
  int64_t n;
  const float* scale;
};

template <int V>
inline void Store(const Target& t, int64_t row, int64_t column, const VF (&acc)[V]) {
  float* out = t.y + row * t.n + column;
  const int64_t left = t.n - column;
  if (left >= V * kLanes) {
    for (int v = 0; v < V; ++v) {
      VF value = acc[v];
      if (t.scale) value *= (VF) * (const VFu*)(t.scale + column + v * kLanes);
      *(VFu*)(out + v * kLanes) = value;
    }
    return;
  }
  float all[V * kLanes];
  std::memcpy(all, acc, sizeof(all));
  for (int64_t i = 0; i < left; ++i) out[i] = t.scale ? all[i] * t.scale[column + i] : all[i];
}

// Adds kStep k of V * kLanes outputs. A weight is decoded before its R products, and its word is read
// again for each k: R * V sums, R numbers of x and one weight are all that the registers hold.
template <typename W, int S, int R, int V>
inline __attribute__((always_inline)) void Step(const typename W::Type* p, const float* x,
                                                VF (&acc)[R][V]) {
  if constexpr (S < W::kStep) {
    float rows[R];
    for (int r = 0; r < R; ++r) rows[r] = x[S * R + r];
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) {
      const VF w = W::template Decode<S>(Words(p + v * kLanes * W::kStep));
      for (int r = 0; r < R; ++r) acc[r][v] += w * rows[r];
    }
    // Otherwise the compiler keeps the words from one k to the next, and spills sums to memory.
    if (R > 1) asm("" : "+r"(p));
    Step<W, S + 1, R, V>(p, x, acc);
  }
}

// The first element of an output column.
template <typename T>
const T* Column(const T* panels, int64_t K, int64_t column, int step) {
  return panels + column / kPanel * K * kPanel + column % kPanel * step;
}

constexpr int kFew = 4;  // number of rows of a block

// Which memory a pass over a panel prefetches: what it will read itself, or, if `parts` passes share
// one panel, its share of the next one, so that memory is never idle.
struct Ahead {
  const void* next;
  int64_t part, parts;
};

class Prefetch {
 public:
  // For a pass of C columns that begins at p, over `groups` groups of 4 * kPanel bytes.
  template <int C>
  static Prefetch Of(const Ahead& ahead, const void* p, int64_t column, int64_t groups) {
    constexpr int64_t kRow = 4 * kPanel;
    if (!ahead.next) return {(const char*)p, kRow, C * 4 / kLine};
    constexpr int64_t kSplit = kPanel / C;
    const int64_t part = ahead.part * kSplit + column % kPanel / C;
    const int64_t lines = std::max<int64_t>(1, kRow / kLine / (ahead.parts * kSplit));
    // Less what Next adds: here the place is exact.
    const char* from = (const char*)ahead.next + part * groups * lines * kLine - kFar;
    return {from, lines * kLine, part * lines * kLine < kRow ? (int)lines : 0};
  }

  // As measured: if few rows pass over the weights once, prefetching a little ahead into the first
  // cache is best; otherwise far ahead into the second.
  template <bool kFewRows>
  inline __attribute__((always_inline)) void Next(bool once) {
    const bool close = kFewRows && once;
    for (int i = 0; i < lines_; ++i) {
      if (close) {
        __builtin_prefetch(at_ + 8192 + i * kLine, 0, 3);
      } else {
        __builtin_prefetch(at_ + kFar + i * kLine, 0, 2);
      }
    }
    at_ += advance_;
  }

 private:
  static constexpr int64_t kLine = 64, kFar = 16384;
  Prefetch(const char* at, int64_t advance, int lines)
      : at_(at), advance_(advance), lines_(lines) {}
  const char* at_;
  int64_t advance_;
  int lines_;
};

// R rows times C columns from `column` on. x: [K, R], the rows transposed.
template <typename W, int R, int C>
void Block(const typename W::Type* panels, const float* x, int64_t K, const Target& t, int64_t row,
           int64_t column, const Ahead& ahead) {
  constexpr int V = C / kLanes;
  VF acc[R][V] = {};
  const int64_t whole = K - K % W::kStep;
  const auto* p = Column(panels, K, column, W::kStep);
  Prefetch prefetch = Prefetch::Of<C>(ahead, p, column, K / W::kStep);
  for (int64_t k = 0; k < whole; k += W::kStep, p += kPanel * W::kStep) {
    prefetch.template Next<R <= kFew>(!ahead.next);
    Step<W, 0, R, V>(p, x + k * R, acc);
  }
  p = Column(panels, K, column, 1) + whole * kPanel;
  for (int64_t k = whole; k < K; ++k, p += kPanel) {
    float w[C];
    for (int i = 0; i < C; ++i) w[i] = W::Scalar(p[i]);
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < V; ++v) acc[r][v] += (VF) * (VFu*)(w + v * kLanes) * x[k * R + r];
  }
  for (int r = 0; r < R; ++r) Store(t, row + r, column, acc[r]);
}

// R = `rows` rows times half panels [first, last).
template <typename W, int R = kRows>
void Rows(int rows, const typename W::Type* panels, const float* x, int64_t K, const Target& t,
          int64_t row, int64_t first, int64_t last, const Ahead& ahead) {
  if constexpr (R > 0) {
    if (rows != R)
      return Rows<W, R - 1>(rows, panels, x, K, t, row, first, last, ahead);
    constexpr int C = Columns(R);
    const int64_t end = last * kHalf;
    for (int64_t column = first * kHalf; column < end;) {
      if (C <= kHalf || (column % kPanel == 0 && column + C <= end)) {
        Block<W, R, C>(panels, x, K, t, row, column, ahead);
        column += C;
      } else {
        Block<W, R, kHalf>(panels, x, K, t, row, column, ahead);
        column += kHalf;
      }
    }
  }
}

}  // namespace mtjax
