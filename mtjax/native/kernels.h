// Inner loops: R rows of x times P panels of 32 outputs, weights read once, in order.
//
// Every output is one chain of fused multiply-adds over k in order (or one exact integer sum), so a
// row's result does not depend on how many rows or threads there are.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

namespace mtjax {

constexpr int kPanel = 32;

#if defined(__AVX512F__)
constexpr int kLanes = 16, kRows = 12;
#elif defined(__AVX__)
constexpr int kLanes = 8, kRows = 3;
#else
constexpr int kLanes = 4, kRows = 3;
#endif
constexpr int kVecs = kPanel / kLanes;

typedef float VF __attribute__((vector_size(kLanes * 4)));
typedef int32_t VI __attribute__((vector_size(kLanes * 4)));
typedef float VFu __attribute__((vector_size(kLanes * 4), aligned(4), may_alias));
typedef int32_t VIu __attribute__((vector_size(kLanes * 4), aligned(1), may_alias));

inline VI Words(const void* p) { return *static_cast<const VIu*>(p); }

// A stored row group: kStep consecutive k of one output share a 32-bit word.
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
    uint32_t bits = (uint32_t)w << 16;
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

// Where a block of rows lands: y[r * ld + n], columns below `n` only, times scale where given.
struct Target {
  float* y;
  int64_t ld, n;
  const float* scale;
};

inline void Store(const Target& t, int64_t row, int64_t column, const VF (&acc)[kVecs]) {
  float* out = t.y + row * t.ld + column;
  int64_t left = t.n - column;
  if (left >= kPanel) {
    for (int v = 0; v < kVecs; ++v) {
      VF value = acc[v];
      if (t.scale) value *= (VF) * (const VFu*)(t.scale + column + v * kLanes);
      *(VFu*)(out + v * kLanes) = value;
    }
    return;
  }
  float all[kPanel];
  std::memcpy(all, acc, sizeof(all));
  for (int64_t i = 0; i < left; ++i) out[i] = t.scale ? all[i] * t.scale[column + i] : all[i];
}

template <typename W, int S, int R, int P>
inline __attribute__((always_inline)) void Step(const VI (&words)[P][kVecs], const float* x,
                                                VF (&acc)[P][R][kVecs]) {
  if constexpr (S < W::kStep) {
    VF w[P][kVecs];
    for (int p = 0; p < P; ++p)
      for (int v = 0; v < kVecs; ++v) w[p][v] = W::template Decode<S>(words[p][v]);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
      for (int p = 0; p < P; ++p)
        for (int v = 0; v < kVecs; ++v) acc[p][r][v] += w[p][v] * x[S * R + r];
    Step<W, S + 1, R, P>(words, x, acc);
  }
}

// x: [K, R], the block's rows transposed. panels: first of P panels of K * 32 weights.
template <typename W, int R, int P>
void Block(const typename W::Type* panels, const float* x, int64_t K, const Target& t, int64_t row,
           int64_t column) {
  VF acc[P][R][kVecs] = {};
  const int64_t whole = K - K % W::kStep;
  for (int64_t k = 0; k < whole; k += W::kStep) {
    VI words[P][kVecs];
    for (int p = 0; p < P; ++p)
      for (int v = 0; v < kVecs; ++v)
        words[p][v] = Words(panels + (p * K + k) * kPanel + v * kLanes * W::kStep);
    Step<W, 0, R, P>(words, x + k * R, acc);
  }
  for (int64_t k = whole; k < K; ++k) {
    for (int p = 0; p < P; ++p) {
      float w[kPanel];
      for (int i = 0; i < kPanel; ++i) w[i] = W::Scalar(panels[(p * K + k) * kPanel + i]);
      for (int r = 0; r < R; ++r)
        for (int v = 0; v < kVecs; ++v) acc[p][r][v] += (VF) * (VFu*)(w + v * kLanes) * x[k * R + r];
    }
  }
  for (int p = 0; p < P; ++p)
    for (int r = 0; r < R; ++r) Store(t, row + r, column + p * kPanel, acc[p][r]);
}

// Few rows leave few chains of multiply-adds in flight: more panels at once hide their latency.
template <typename W, int R>
void Panels(const typename W::Type* panels, const float* x, int64_t K, const Target& t, int64_t row,
            int64_t first, int64_t last) {
  constexpr int kBoth = R * kVecs <= 4 ? 4 : R * kVecs <= 8 ? 2 : 1;
  int64_t p = first;
  for (; p + kBoth <= last; p += kBoth)
    Block<W, R, kBoth>(panels + p * K * kPanel, x, K, t, row, p * kPanel);
  for (; p < last; ++p) Block<W, R, 1>(panels + p * K * kPanel, x, K, t, row, p * kPanel);
}

template <typename W, int R = kRows>
void Rows(int rows, const typename W::Type* panels, const float* x, int64_t K, const Target& t,
          int64_t row, int64_t first, int64_t last) {
  if constexpr (R > 0) {
    if (rows == R) return Panels<W, R>(panels, x, K, t, row, first, last);
    Rows<W, R - 1>(rows, panels, x, K, t, row, first, last);
  }
}

}  // namespace mtjax
