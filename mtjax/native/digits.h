// int8 weights with AVX-512 VNNI: x as fixed point, three signed digits in base 256.
//
// A row of x is rounded to max|x| / 8323072 (2^-23 of its largest entry: what float32 itself
// keeps of that entry), each digit's product with the weights is an exact integer sum. Rows that
// fixed point cannot hold (not finite, or vanishing) are left to the float loop.
#pragma once

#include "kernels.h"

#if defined(__AVX512VNNI__) && defined(__AVX512F__)
#define MTJAX_DIGITS 1

namespace mtjax {

constexpr int kDigitRows = 4;
constexpr int kDigits = 3;
constexpr float kTop = 8323072.0f;  // 2^23 - 2^16: the highest digit stays within int8
constexpr int64_t kDigitK = 1 << 17;  // longer sums could leave int32

struct DigitRow {
  float unit;                // what one step of the lowest digit is worth; < 0: use the float loop
  int32_t offset[kDigits];   // 128 * the sum of a digit: weights enter as w + 128
};

// Digits of row r of R: words[k / 4][r][digit], four k to a word.
inline DigitRow ToDigits(const float* x, int64_t K, int r, int R, int8_t* words) {
  const int64_t quads = (K + 3) / 4;
  float top = 0;
  bool finite = true;
  for (int64_t k = 0; k < K; ++k) {
    top = std::max(top, std::fabs(x[k]));
    finite &= std::fabs(x[k]) <= 3.4028234e38f;
  }
  DigitRow row = {};
  const bool fits = finite && (top == 0 || top > 1e-30f);
  const float inverse = fits && top > 0 ? kTop / top : 0.0f;
  row.unit = fits ? top / kTop : -1.0f;
  int32_t sum[kDigits] = {};
  for (int64_t k = 0; k < quads * 4; ++k) {
    int32_t value = k < K && fits ? (int32_t)std::lrint(x[k] * inverse) : 0;
    int8_t* word = words + (k / 4 * R + r) * kDigits * 4 + k % 4;
    for (int d = 0; d < kDigits; ++d) {
      int8_t digit = (int8_t)value;
      value = (value - digit) >> 8;
      word[d * 4] = digit;
      if (k < K - K % 4) sum[d] += digit;
    }
  }
  for (int d = 0; d < kDigits; ++d) row.offset[d] = 128 * sum[d];
  return row;
}

template <int R, int P>
void DigitBlock(const int8_t* panels, const int32_t* words, const DigitRow* rows, int64_t K,
                const Target& t, int64_t row, int64_t column) {
  __m512i acc[P][R][kDigits][2];
  for (int p = 0; p < P; ++p)
    for (int r = 0; r < R; ++r)
      for (int d = 0; d < kDigits; ++d)
        acc[p][r][d][0] = acc[p][r][d][1] = _mm512_set1_epi32(-rows[r].offset[d]);
  const __m512i flip = _mm512_set1_epi8((char)0x80);
  const int64_t quads = K / 4;
  for (int64_t q = 0; q < quads; ++q) {
    __m512i w[P][2];
    for (int p = 0; p < P; ++p)
      for (int v = 0; v < 2; ++v)
        w[p][v] = _mm512_xor_si512(
            flip, _mm512_loadu_si512(panels + (p * K + q * 4) * kPanel + v * 64));
    for (int r = 0; r < R; ++r)
      for (int d = 0; d < kDigits; ++d) {
        const __m512i x = _mm512_set1_epi32(words[(q * R + r) * kDigits + d]);
        for (int p = 0; p < P; ++p)
          for (int v = 0; v < 2; ++v)
            acc[p][r][d][v] = _mm512_dpbusd_epi32(acc[p][r][d][v], w[p][v], x);
      }
  }
  for (int64_t k = quads * 4; k < K; ++k)
    for (int p = 0; p < P; ++p)
      for (int v = 0; v < 2; ++v) {
        const __m512i w = _mm512_cvtepi8_epi32(
            _mm_loadu_si128((const __m128i*)(panels + (p * K + k) * kPanel + v * 16)));
        for (int r = 0; r < R; ++r)
          for (int d = 0; d < kDigits; ++d) {
            const int8_t digit = ((const int8_t*)(words + (quads * R + r) * kDigits + d))[k % 4];
            acc[p][r][d][v] = _mm512_add_epi32(
                acc[p][r][d][v], _mm512_mullo_epi32(w, _mm512_set1_epi32(digit)));
          }
      }
  for (int p = 0; p < P; ++p)
    for (int r = 0; r < R; ++r) {
      if (rows[r].unit < 0) continue;
      VF out[kVecs];
      for (int v = 0; v < 2; ++v) {
        __m512 sum = _mm512_cvtepi32_ps(acc[p][r][2][v]);
        sum = _mm512_fmadd_ps(sum, _mm512_set1_ps(256), _mm512_cvtepi32_ps(acc[p][r][1][v]));
        sum = _mm512_fmadd_ps(sum, _mm512_set1_ps(256), _mm512_cvtepi32_ps(acc[p][r][0][v]));
        out[v] = (VF)_mm512_mul_ps(sum, _mm512_set1_ps(rows[r].unit));
      }
      Store(t, row + r, column + p * kPanel, out);
    }
}

template <int R = kDigitRows>
void DigitRows(int count, const int8_t* panels, const int32_t* words, const DigitRow* rows,
               int64_t K, const Target& t, int64_t row, int64_t first, int64_t last) {
  if constexpr (R > 0) {
    if (count != R)
      return DigitRows<R - 1>(count, panels, words, rows, K, t, row, first, last);
    constexpr int kBoth = R == 1 ? 2 : 1;
    int64_t p = first;
    for (; p + kBoth <= last; p += kBoth)
      DigitBlock<R, kBoth>(panels + p * K * kPanel, words, rows, K, t, row, p * kPanel);
    for (; p < last; ++p)
      DigitBlock<R, 1>(panels + p * K * kPanel, words, rows, K, t, row, p * kPanel);
  }
}

}  // namespace mtjax
#endif
