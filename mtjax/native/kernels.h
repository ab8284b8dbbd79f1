// Inner loops over weights in panels of 64 outputs, in sections of some k that stay in the first
// cache while all rows of x pass over them.
//
// Every output is one chain of fused multiply-adds over k in order, so a row's result does not
// depend on how many rows or threads there are: between sections the sums rest in memory, as they
// are.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace mtjax {

constexpr int kPanel = 64;
constexpr int kHalf = kPanel / 2;  // the unit of sharing: N = 320 splits evenly

// The sums of kRows rows by kColumns outputs, and what they meet, fit in the vector registers. A
// strip prefetches kLinesPerBeat lines at a time, to the first cache (3) or the second (2), as
// measured: strips of whole panels read as fast as memory is, and the first cache waits for too few
// lines at once.
#if defined(__AVX512F__)
constexpr int kLanes = 16, kRows = 6;
constexpr int kColumns = kPanel;
constexpr int kLinesPerBeat = 4, kFetchedTo = 2;
#elif defined(__AVX__)
constexpr int kLanes = 8, kRows = 6;
constexpr int kColumns = kHalf / 2;
constexpr int kLinesPerBeat = 2, kFetchedTo = 3;
#else
constexpr int kLanes = 4, kRows = 3;
constexpr int kColumns = kHalf / 2;
constexpr int kLinesPerBeat = 2, kFetchedTo = 3;
#endif

typedef float VF __attribute__((vector_size(kLanes * 4)));
typedef int32_t VI __attribute__((vector_size(kLanes * 4)));
typedef float VFu __attribute__((vector_size(kLanes * 4), aligned(4), may_alias));
typedef int32_t VIu __attribute__((vector_size(kLanes * 4), aligned(1), may_alias));

inline VI Words(const void* p) { return *static_cast<const VIu*>(p); }

// Keeps a vector in a register: otherwise the compiler reads a weight again for each row.
inline void Hold(VF& v) {
#if defined(__AVX512F__)
  asm("" : "+v"(v));
#elif defined(__x86_64__)
  asm("" : "+x"(v));
#elif defined(__aarch64__)
  asm("" : "+w"(v));
#else
  (void)v;
#endif
}

// How several rows read weights: sections that stay in the first cache while all rows pass over
// them, and how far ahead of what is read they prefetch to the same cache; in bytes, as measured.
struct Pace {
  int64_t section, ahead;
};
constexpr Pace kPace = {16384, 16384};

// Cores of Intel wait longer for memory than those of AMD: they prefetch as far ahead as kPace says,
// but for one row of float32, which reads in order. Measured with AVX-512 only, on a server.
#if defined(__AVX512F__)
static const bool kAskEarly = (__builtin_cpu_init(), __builtin_cpu_is("intel") != 0);
#else
constexpr bool kAskEarly = false;
#endif

// A type of stored weight: kStep consecutive k of one output share a 32-bit word.
//
// kAheadOfOne: bytes from what one row reads to what it prefetches, 0 for nothing: it reads in
// order, which the processor foresees. kOneBlock: the pace of so few rows that they are one block,
// but of several strips. Where kAskEarly, kPace stands for both.
struct F32 {
  using Type = float;
  static constexpr int kStep = 1, kAheadOfOne = 0;
  static constexpr Pace kOneBlock = {4096, 4096};
  template <int S>
  static VF Decode(VI word) {
    return (VF)word;
  }
  static float Scalar(Type w) { return w; }
};

struct BF16 {
  using Type = uint16_t;
  static constexpr int kStep = 2, kAheadOfOne = 1024;
  static constexpr Pace kOneBlock = kPace;
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
  static constexpr int kStep = 4, kAheadOfOne = 1024;
  template <int S>
  static VF Decode(VI word) {
    return __builtin_convertvector((word << (24 - 8 * S)) >> 24, VF);
  }
  static float Scalar(Type w) { return w; }
};

// Where results are written: y[row * n + column], columns below n only, times scale if there is
// one.
struct Target {
  float* y;
  int64_t n;
  const float* scale;
};

constexpr int64_t kLine = 64;  // bytes that are prefetched together

// Number of k between prefetches of a strip.
constexpr int kBeat = 2;

// What one strip prefetches. The strips of a section together prefetch as much as they read, at an
// even pace, so that memory is never idle.
class Lines {
 public:
  Lines(const char* at, int64_t step, bool twice) : at_(at), step_(step), twice_(twice) {}

  inline __attribute__((always_inline)) void Prefetch() {
    Some();
    if (kAskEarly && twice_) Some();
  }

 private:
  inline __attribute__((always_inline)) void Some() {
    for (int i = 0; i < kLinesPerBeat; ++i, at_ += step_) __builtin_prefetch(at_, 0, kFetchedTo);
  }

  const char* at_;
  int64_t step_;
  bool twice_;  // a single strip of float32 reads more than kLinesPerBeat lines in a beat
};

// Memory that a section prefetches: `lines` from `at` on.
struct Next {
  const char* at;
  int64_t lines;

  // The share of one of so many strips, each of `beats`.
  Lines Share(int64_t strip, int64_t strips, int64_t beats) const {
    int64_t steps = strips * std::max<int64_t>(1, beats) * kLinesPerBeat;
    const bool twice = kAskEarly && lines > steps;
    if (twice) steps *= 2;
    return {at + strip * lines / strips * kLine, (lines * kLine + steps - 1) / steps, twice};
  }
};

// For a section of `bytes` from p on; end: of the weights that this thread reads.
inline Next NextOf(const void* p, int64_t bytes, const void* end, int64_t ahead) {
  const char* at = (const char*)p + ahead;
  return {at, std::max<int64_t>(0, std::min(bytes, (int64_t)((const char*)end - at)) / kLine)};
}

// R rows of numbers, from the first k of a section on.
template <int R>
using Rows = const float* const (&)[R];

// Adds kStep k of V * kLanes outputs: p are the weights.
template <typename W, int S, int R, int V>
inline __attribute__((always_inline)) void Step(const typename W::Type* p, Rows<R> x, int64_t k,
                                                VF (&acc)[R][V]) {
  if constexpr (S < W::kStep) {
    VF w[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
      w[v] = W::template Decode<S>(Words(p + v * kLanes * W::kStep));
      if (R > 1) Hold(w[v]);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) acc[r][v] += w[v] * x[r][k + S];
    // Otherwise the compiler keeps the words from one k to the next, and spills sums to memory.
    if (R > 1 && W::kStep > 1) asm("" : "+r"(p));
    Step<W, S + 1, R, V>(p, x, k, acc);
  }
}

// Adds `count` k to the sums [R, kPanel] of C outputs. x: R rows, `stride` apart.
template <typename W, int R, int C>
void Strip(const typename W::Type* p, const float* x, int64_t stride, int64_t count, float* sums,
           Lines lines) {
  constexpr int V = C / kLanes;
  VF acc[R][V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) acc[r][v] = *(const VFu*)(sums + r * kPanel + v * kLanes);
  const float* rows[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) rows[r] = x + r * stride;
  int64_t k = 0;
  for (; k + kBeat <= count; k += kBeat) {
    lines.Prefetch();
#pragma GCC unroll 2
    for (int i = 0; i < kBeat; i += W::kStep, p += kPanel * W::kStep)
      Step<W, 0, R, V>(p, rows, k + i, acc);
  }
  for (; k < count; k += W::kStep, p += kPanel * W::kStep) Step<W, 0, R, V>(p, rows, k, acc);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) *(VFu*)(sums + r * kPanel + v * kLanes) = acc[r][v];
}

// Writes `count` sums of a row, from `column` on.
inline void Store(const Target& t, int64_t row, int64_t column, int64_t count, const float* sums) {
  float* y = t.y + row * t.n + column;
  count = std::min(count, t.n - column);
  for (int64_t c = 0; c < count; ++c) y[c] = t.scale ? sums[c] * t.scale[column + c] : sums[c];
}

// Adds the last k of one row, which fill no word, to the sums of `count` outputs of a panel.
template <typename W>
inline void AddLast(const typename W::Type* panel, const float* x, int64_t K, int64_t column,
                    int64_t count, float* sums) {
  for (int64_t k = K - K % W::kStep; k < K; ++k)
    for (int64_t c = 0; c < count; ++c) sums[c] += W::Scalar(panel[k * kPanel + column + c]) * x[k];
}

// Writes C outputs of one row, from `column` on. panel: that of the column, at the column.
template <typename W, int C>
void OneRow(const typename W::Type* panel, const float* x, int64_t K, const Target& t,
            int64_t column) {
  constexpr int V = C / kLanes;
  VF acc[1][V] = {};
  const float* const rows[1] = {x};
  const int64_t whole = K - K % W::kStep;
  const int64_t ahead = kAskEarly ? kPace.ahead : W::kAheadOfOne;
  const auto* p = panel + column % kPanel * W::kStep;
  for (int64_t k = 0; k < whole; k += W::kStep, p += kPanel * W::kStep) {
    if constexpr (W::kAheadOfOne > 0)
      for (int i = 0; i < C * 4; i += kLine)
        __builtin_prefetch((const char*)p + ahead + i, 0, kFetchedTo);
    Step<W, 0, 1, V>(p, rows, k, acc);
  }
  float sums[C];
  std::memcpy(sums, acc, sizeof(sums));
  AddLast<W>(panel, x, K, column % kPanel, C, sums);
  Store(t, 0, column, C, sums);
}

template <typename W>
struct Kernel {
  void (*run)(const typename W::Type*, const float*, int64_t, int64_t, float*, Lines);
  int columns;
};

// The strip for this many rows: of half a panel at most if only that is to be computed.
template <typename W, int R = kRows>
Kernel<W> KernelOf(int rows, int columns) {
  if constexpr (R > 2)
    if (rows != R) return KernelOf<W, R - 1>(rows, columns);
  constexpr int C = kColumns;
  if (columns >= C) return {Strip<W, R, C>, C};
  return {Strip<W, R, std::min(C, kHalf)>, std::min(C, kHalf)};
}

// Blocks of at most `max_rows` rows, as even as possible.
struct Blocks {
  int64_t M, count;
  Blocks(int64_t rows, int64_t max_rows) : M(rows), count((rows + max_rows - 1) / max_rows) {}
  int64_t begin(int64_t b) const { return b * M / count; }
  int rows(int64_t b) const { return (int)(begin(b + 1) - begin(b)); }
};

// Adds `count` k of all rows, from `begin` on. p and sums: the first of `columns` outputs.
template <typename W>
void Section(const typename W::Type* p, const float* x, int64_t K, const Blocks& blocks,
             int64_t count, int64_t begin, int columns, float* sums, const Next& next) {
  int64_t parts = 0;
  for (int64_t b = 0; b < blocks.count; ++b)
    parts += columns / KernelOf<W>(blocks.rows(b), columns).columns;
  int64_t part = 0;
  for (int64_t b = 0; b < blocks.count; ++b) {
    const int rows = blocks.rows(b);
    const Kernel<W> kernel = KernelOf<W>(rows, columns);
    for (int c = 0; c < columns; c += kernel.columns, ++part)
      kernel.run(p + c * W::kStep, x + blocks.begin(b) * K + begin, K, count,
                 sums + blocks.begin(b) * kPanel + c,
                 next.Share(part, parts, count / kBeat));
  }
}

// Writes outputs [from, to) of the panel at `column` for all rows. sums: scratch [M, kPanel]; end:
// of the weights that this thread reads.
template <typename W>
void Panel(const typename W::Type* panel, const float* x, int64_t K, const Blocks& blocks,
           const Target& t, int64_t column, int from, int to, float* sums, const void* end) {
  std::memset(sums, 0, blocks.M * kPanel * sizeof(float));
  const int columns = to - from;
  const int64_t whole = K - K % W::kStep, bytes = kPanel * sizeof(*panel);
  const Pace pace = blocks.count == 1 && !kAskEarly ? W::kOneBlock : kPace;
  // A single strip that covers all columns reads in order, too.
  const bool in_order = W::kAheadOfOne == 0 && blocks.count == 1 && !kAskEarly &&
                        KernelOf<W>(blocks.rows(0), columns).columns == columns;
  for (int64_t k = 0; k < whole; k += pace.section / bytes) {
    const int64_t count = std::min(pace.section / bytes, whole - k);
    const auto* p = panel + k * kPanel;
    const Next next =
        in_order ? Next{(const char*)p, 0} : NextOf(p, count * bytes, end, pace.ahead);
    Section<W>(p + from * W::kStep, x, K, blocks, count, k, columns, sums + from, next);
  }
  for (int64_t k = whole; k < K; ++k)
    for (int64_t b = 0; b < blocks.count; ++b)
      for (int r = 0; r < blocks.rows(b); ++r) {
        float* sum = sums + (blocks.begin(b) + r) * kPanel;
        const float factor = x[(blocks.begin(b) + r) * K + k];
        for (int c = from; c < to; ++c) sum[c] += W::Scalar(panel[k * kPanel + c]) * factor;
      }
  for (int64_t row = 0; row < blocks.M; ++row)
    Store(t, row, column + from, columns, sums + row * kPanel + from);
}

}  // namespace mtjax
