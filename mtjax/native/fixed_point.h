// int8 weights: x as fixed point of 16 bits, whose products with weights are exact integer sums.
//
// Of every kGroup consecutive k of a row, x is rounded to multiples of max|x| / 32767, as
// integers; the group's sum of weight * integer is exact, and counts max|x| / 32767 times in the
// output. So a result does not depend on how many rows or threads there are, nor on the width of
// vectors. One instruction multiplies twice as many integers as floats, and weights need no
// conversion to floats, which takes an AVX2 core longer than to read them.
#pragma once

#include "kernels.h"

namespace mtjax {

constexpr int kGroup = 128;            // 128 * 128 * 32767 is far from the end of int32
constexpr int kMaxFixedRows = 8;       // their sums, and what they meet, fit in the registers
constexpr float kTop = 32767.0f;
constexpr float kSmallest = 1e-30f;    // kTop over it is finite
// Bytes from what is read to what is prefetched, for one row and for more.
static const int64_t kAheadOfFixed = kAskEarly ? kPace.ahead : 1024;
static const int64_t kFixedAhead = kAskEarly ? kPace.ahead : 8192;

inline int64_t Groups(int64_t whole) { return (whole + kGroup - 1) / kGroup; }

// Rows of one block as fixed point: integers [whole / 4][R][4], units [groups][R]. The four k of a
// word are in the order 0, 2, 1, 3: weights are split into even and odd bytes.
struct Fixed {
  const int16_t* integers;
  const float* units;
};

// Writes row r of R, of which `whole` k, a multiple of 4, fill words. Returns false for a row that
// fixed point cannot hold: not finite, or a group of it vanishing, but not zero.
inline bool ToFixed(const float* x, int64_t whole, int r, int R, int16_t* integers, float* units) {
  for (int64_t begin = 0; begin < whole; begin += kGroup) {
    const int count = (int)std::min<int64_t>(kGroup, whole - begin);
    int32_t bits[kGroup], top_bits = 0;
    std::memcpy(bits, x + begin, count * 4);
    // As integers, infinity and NaN are above every finite magnitude.
    for (int i = 0; i < count; ++i) top_bits = std::max(top_bits, bits[i] & 0x7fffffff);
    float top;
    std::memcpy(&top, &top_bits, 4);
    if (top_bits >= 0x7f800000 || (top_bits && top < kSmallest)) return false;
    units[begin / kGroup * R + r] = top / kTop;
    const float inverse = top_bits ? kTop / top : 0.0f;
    // The last bits of 1.5 * 2^23 + value are the value, rounded to nearest.
    constexpr float kRound = 12582912.0f;
    float shifted[kGroup];
    for (int i = 0; i < count; ++i) shifted[i] = x[begin + i] * inverse + kRound;
    std::memcpy(bits, shifted, count * 4);
    for (int i = 0; i < count; i += 4) {
      int16_t* to = integers + ((begin + i) / 4 * R + r) * 4;
      for (int k = 0; k < 4; ++k) to[k] = (int16_t)(bits[i + (k == 1 ? 2 : k == 2 ? 1 : k)]);
    }
  }
  return true;
}

// Returns sums + the sums of the two products of int16 in each word.
inline VI AddPairs(VI sums, VI w, VI x) {
#if defined(__AVX512VNNI__) && defined(__AVX512F__)
  asm("vpdpwssd %2, %1, %0" : "+v"(sums) : "v"(w), "v"(x));
  return sums;
#elif defined(__AVX512BW__) && defined(__AVX512F__)
  VI pairs;
  asm("vpmaddwd %2, %1, %0" : "=v"(pairs) : "v"(w), "v"(x));
  return sums + pairs;
#elif defined(__AVX2__) && !defined(__AVX512F__)
  VI pairs;
  asm("vpmaddwd %2, %1, %0" : "=x"(pairs) : "x"(w), "x"(x));
  return sums + pairs;
#else
  return sums + ((w << 16) >> 16) * ((x << 16) >> 16) + (w >> 16) * (x >> 16);
#endif
}

// Adds four k of V * kLanes outputs. x: integers of R rows.
template <int R, int V>
inline __attribute__((always_inline)) void FixedStep(const int8_t* p, const int16_t* x,
                                                     VI (&sums)[R][V]) {
  typedef int16_t Halves __attribute__((vector_size(kLanes * 4)));
  typedef int32_t Pair __attribute__((may_alias));
  const Pair* pairs = (const Pair*)x;
#pragma GCC unroll 8
  for (int v = 0; v < V; ++v) {
    const Halves word = (Halves)Words(p + v * kLanes * 4);
    const VI even = (VI)((word << 8) >> 8), odd = (VI)(word >> 8);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      sums[r][v] = AddPairs(sums[r][v], even, VI{} + pairs[2 * r]);
      sums[r][v] = AddPairs(sums[r][v], odd, VI{} + pairs[2 * r + 1]);
    }
  }
}

// Adds `count` k, at most a group, to the sums [R, kPanel] of C outputs.
template <int R, int C>
void FixedStrip(const int8_t* p, const Fixed& x, int64_t count, float* sums, Lines lines) {
  constexpr int V = C / kLanes;
  VI acc[R][V] = {};
  const int16_t* integers = x.integers;
  for (int64_t k = 0; k < count; k += 4, p += kPanel * 4, integers += R * 4) {
    lines.Prefetch();
    FixedStep<R, V>(p, integers, acc);
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
      VFu* sum = (VFu*)(sums + r * kPanel + v * kLanes);
      *sum = *sum + __builtin_convertvector(acc[r][v], VF) * x.units[r];
    }
}

// As OneRow, of integers.
template <int C>
void FixedRow(const int8_t* panel, const float* row, const Fixed& x, int64_t K, const Target& t,
              int64_t column) {
  constexpr int V = C / kLanes;
  VF sums[V] = {};
  const int64_t whole = K - K % 4;
  const int8_t* p = panel + column % kPanel * 4;
  const int16_t* integers = x.integers;
  for (int64_t begin = 0; begin < whole; begin += kGroup) {
    VI acc[1][V] = {};
    const int64_t end = std::min<int64_t>(whole, begin + kGroup);
    for (int64_t k = begin; k < end; k += 4, p += kPanel * 4, integers += 4) {
      for (int i = 0; i < C * 4; i += kLine)
        __builtin_prefetch(p + kAheadOfFixed + i, 0, kFetchedTo);
      FixedStep<1, V>(p, integers, acc);
    }
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v)
      sums[v] += __builtin_convertvector(acc[0][v], VF) * x.units[begin / kGroup];
  }
  float out[C];
  std::memcpy(out, sums, sizeof(out));
  AddLast<I8>(panel, row, K, column % kPanel, C, out);
  Store(t, 0, column, C, out);
}

struct FixedKernel {
  void (*run)(const int8_t*, const Fixed&, int64_t, float*, Lines);
  int columns;
};

// The strip for this many rows: their sums, and the words of one or two vectors, are in registers.
template <int R = kMaxFixedRows>
FixedKernel FixedKernelOf(int rows) {
  if constexpr (R > 1)
    if (rows != R) return FixedKernelOf<R - 1>(rows);
  constexpr int C = kLanes * (kLanes == 16 || R <= 4 ? 2 : 1);
  return {FixedStrip<R, C>, C};
}

// As Panel, of integers: x holds all blocks, row r of `rows` is row r of the product.
inline void FixedPanel(const int8_t* panel, const float* rows, const Fixed& x, int64_t K,
                       const Blocks& blocks, const Target& t, int64_t column, int from, int to,
                       float* sums, const void* end) {
  std::memset(sums, 0, blocks.M * kPanel * sizeof(float));
  const int64_t whole = K - K % 4;
  int64_t parts = 0;
  for (int64_t b = 0; b < blocks.count; ++b)
    parts += (to - from) / FixedKernelOf(blocks.rows(b)).columns;
  for (int64_t k = 0; k < whole; k += kGroup) {
    const int64_t count = std::min<int64_t>(kGroup, whole - k);
    const int8_t* p = panel + k * kPanel;
    const Next next = NextOf(p, count * kPanel, end, kFixedAhead);
    int64_t part = 0;
    for (int64_t b = 0; b < blocks.count; ++b) {
      const int64_t R = blocks.rows(b), first = blocks.begin(b);
      const FixedKernel kernel = FixedKernelOf((int)R);
      const Fixed here = {x.integers + first * whole + k * R,
                          x.units + first * Groups(whole) + k / kGroup * R};
      for (int c = from; c < to; c += kernel.columns, ++part)
        kernel.run(p + c * 4, here, count, sums + first * kPanel + c,
                   next.Share(part, parts, count / 4));
    }
  }
  for (int64_t r = 0; r < blocks.M; ++r) {
    float* sum = sums + r * kPanel + from;
    AddLast<I8>(panel, rows + r * K, K, from, to - from, sum);
    Store(t, r, column + from, to - from, sum);
  }
}

}  // namespace mtjax
