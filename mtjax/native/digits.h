// int8 weights with AVX-512 VNNI: x as fixed point, three signed digits in base 256.
//
// A row of x is rounded to max|x| / 8323072 (2^-23 of its largest entry: what float32 itself
// keeps of that entry), each digit's product with the weights is an exact integer sum. Rows that
// fixed point cannot hold (not finite, or vanishing) are left to the float loop.
#pragma once

#include "kernels.h"

#if defined(__AVX512VNNI__) && defined(__AVX512F__) && defined(__AVX512BW__)
#define MTJAX_DIGITS 1

#include <immintrin.h>

namespace mtjax {

constexpr int kDigitRows = 4;
constexpr int kDigits = 3;
constexpr int kGroup = 4;             // words of four k: one for each digit, and padding
constexpr float kTop = 8323072.0f;    // 2^23 - 2^16: the highest digit stays within int8
constexpr int64_t kDigitK = 1 << 16;  // longer sums could leave int32

struct DigitRow {
  float unit;                // value of one step of the lowest digit; < 0: use the float loop
  int32_t offset[kDigits];   // -128 * the sum of a digit: weights enter as w + 128
};

// Which memory a pass over a panel prefetches: what it will read itself, or, if `parts` passes
// share one panel, its share of the next one, so that memory is never idle.
struct Share {
  const void* next;
  int64_t part, parts;
};

class Prefetch {
 public:
  // For a pass of C columns that begins at p, over `groups` groups of 4 * kPanel bytes.
  template <int C>
  static Prefetch Of(const Share& share, const void* p, int64_t column, int64_t groups) {
    constexpr int64_t kRow = 4 * kPanel;
    if (!share.next) return {(const char*)p, kRow, C * 4 / kLine};
    constexpr int64_t kSplit = kPanel / C;
    const int64_t part = share.part * kSplit + column % kPanel / C;
    const int64_t lines = std::max<int64_t>(1, kRow / kLine / (share.parts * kSplit));
    // Less what Next adds: here the place is exact.
    const char* from = (const char*)share.next + part * groups * lines * kLine - kFar;
    return {from, lines * kLine, part * lines * kLine < kRow ? (int)lines : 0};
  }

  inline __attribute__((always_inline)) void Next() {
    for (int i = 0; i < lines_; ++i) __builtin_prefetch(at_ + kFar + i * kLine, 0, 2);
    at_ += advance_;
  }

 private:
  static constexpr int64_t kFar = 16384;
  Prefetch(const char* at, int64_t advance, int lines)
      : at_(at), advance_(advance), lines_(lines) {}
  const char* at_;
  int64_t advance_;
  int lines_;
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

// The first element of an output column.
template <typename T>
const T* Column(const T* panels, int64_t K, int64_t column, int step) {
  return panels + column / kPanel * K * kPanel + column % kPanel * step;
}

inline __mmask16 First(int64_t count) { return count >= 16 ? 0xffff : (1u << count) - 1; }

// Digits of row r of R: words[k / 4][r][digit], four k per word, zeros after the last.
inline DigitRow ToDigits(const float* x, int64_t K, int r, int R, int32_t* words) {
  __m512i top_bits = _mm512_setzero_si512();
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  for (int64_t k = 0; k < K; k += 16) {
    const __m512i bits = _mm512_maskz_loadu_epi32(First(K - k), x + k);
    top_bits = _mm512_max_epi32(top_bits, _mm512_and_si512(bits, magnitude));
  }
  const int32_t top_word = _mm512_reduce_max_epi32(top_bits);
  float top;
  std::memcpy(&top, &top_word, 4);
  // As integers, infinity and NaN are above every finite magnitude.
  const bool fits = top_word < 0x7f800000 && (top_word == 0 || top > 1e-30f);
  DigitRow row = {fits ? top / kTop : -1.0f, {}};
  const __m512 inverse = _mm512_set1_ps(fits && top_word ? kTop / top : 0.0f);
  // Adding 128 to each digit makes them the bytes of one number; flipping the bit takes it back.
  const __m512i bias = _mm512_set1_epi32(0x808080);
  const __m512i by_digit = _mm512_broadcast_i32x4(
      _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, -1, -1, -1, -1));
  __m512i sum = _mm512_setzero_si512();
  for (int64_t k = 0; k < K; k += 16) {
    __m512 values = _mm512_maskz_loadu_ps(fits ? First(K - k) : 0, x + k);
    __m512i whole = _mm512_cvtps_epi32(_mm512_mul_ps(values, inverse));
    whole = _mm512_xor_si512(_mm512_add_epi32(whole, bias), bias);
    const __m512i digits = _mm512_shuffle_epi8(whole, by_digit);
    int32_t* to = words + (k / 4 * R + r) * kGroup;
    const int64_t quads = std::min<int64_t>(4, (K - k + 3) / 4);
    __m128i lanes[4] = {_mm512_extracti32x4_epi32(digits, 0), _mm512_extracti32x4_epi32(digits, 1),
                        _mm512_extracti32x4_epi32(digits, 2), _mm512_extracti32x4_epi32(digits, 3)};
    for (int64_t q = 0; q < quads; ++q) _mm_storeu_si128((__m128i*)(to + q * R * kGroup), lanes[q]);
    // Only whole words meet weights with the offset.
    const int64_t paired = std::min<int64_t>(4, (K - k) / 4) * 4;
    sum = _mm512_mask_add_epi32(sum, First(paired), sum,
                                _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(1), digits));
  }
  int32_t sums[16];
  _mm512_storeu_si512(sums, sum);
  for (int d = 0; d < kDigits; ++d)
    row.offset[d] = -128 * (sums[d] + sums[4 + d] + sums[8 + d] + sums[12 + d]);
  return row;
}

// R rows times C columns from half panel `half` on; see Block.
template <int R, int C>
void DigitBlock(const int8_t* panels, const int32_t* words, const DigitRow* rows, int64_t K,
                const Target& t, int64_t row, int64_t half,
                const Share& share) {
  constexpr int V = C / 16;
  __m512i acc[R][kDigits][V];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int d = 0; d < kDigits; ++d)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) acc[r][d][v] = _mm512_set1_epi32(rows[r].offset[d]);
  const __m512i flip = _mm512_set1_epi8((char)0x80);
  const int64_t quads = K / 4;
  const int8_t* p = Column(panels, K, half * kHalf, 4);
  Prefetch prefetch = Prefetch::Of<C>(share, p, half * kHalf, quads);
  for (int64_t q = 0; q < quads; ++q, p += kPanel * 4) {
    __m512i w[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) w[v] = _mm512_xor_si512(flip, _mm512_loadu_si512(p + v * 64));
    prefetch.Next();
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int d = 0; d < kDigits; ++d) {
        const __m512i x = _mm512_set1_epi32(words[(q * R + r) * kGroup + d]);
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) acc[r][d][v] = _mm512_dpbusd_epi32(acc[r][d][v], w[v], x);
      }
  }
  p = Column(panels, K, half * kHalf, 1) + quads * 4 * kPanel;
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
    VF out[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      __m512 sum = _mm512_setzero_ps();
#pragma GCC unroll 4
      for (int d = kDigits - 1; d >= 0; --d) {
        __m512i part = acc[r][d][v];
        for (int64_t k = quads * 4; k < K; ++k) {
          const __m512i w = _mm512_cvtepi8_epi32(
              _mm_loadu_si128((const __m128i*)(p + (k - quads * 4) * kPanel + v * 16)));
          const int8_t digit = ((const int8_t*)(words + (quads * R + r) * kGroup + d))[k % 4];
          part = _mm512_add_epi32(part, _mm512_mullo_epi32(w, _mm512_set1_epi32(digit)));
        }
        sum = _mm512_fmadd_ps(sum, _mm512_set1_ps(256), _mm512_cvtepi32_ps(part));
      }
      out[v] = (VF)_mm512_mul_ps(sum, _mm512_set1_ps(rows[r].unit));
    }
    if (rows[r].unit >= 0) Store(t, row + r, half * kHalf, out);
  }
}

// R = `count` rows times half panels [first, last).
template <int R = kDigitRows>
void DigitRows(int count, const int8_t* panels, const int32_t* words, const DigitRow* rows,
               int64_t K, const Target& t, int64_t row, int64_t first, int64_t last,
               const Share& share) {
  if constexpr (R > 0) {
    if (count != R)
      return DigitRows<R - 1>(count, panels, words, rows, K, t, row, first, last, share);
    // More rows of a whole panel would not fit in the registers.
    constexpr int kBoth = R == 1 ? kPanel : kHalf;
    for (int64_t half = first; half < last;) {
      if (kBoth == kPanel && half % 2 == 0 && half + 2 <= last) {
        DigitBlock<R, kBoth>(panels, words, rows, K, t, row, half, share);
        half += 2;
      } else {
        DigitBlock<R, kHalf>(panels, words, rows, K, t, row, half, share);
        half += 1;
      }
    }
  }
}

}  // namespace mtjax
#endif
