// y = x W for weights in panels (see matmul.py), as an XLA custom call for CPUs.

#include <cstdlib>
#include <vector>

#include "digits.h"
#include "kernels.h"
#include "pool.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace mtjax {
namespace {

// Grows and stays: one for each thread that calls, not one for each call.
template <typename T>
T* Scratch(size_t count) {
  thread_local std::vector<T> memory;
  if (memory.size() < count) memory.resize(count);
  return memory.data();
}

// Blocks of at most `most` rows, as even as they can be.
struct Blocks {
  int64_t M, count;
  Blocks(int64_t rows, int64_t most) : M(rows), count((rows + most - 1) / most) {}
  int64_t begin(int64_t b) const { return b * M / count; }
  int rows(int64_t b) const { return (int)(begin(b + 1) - begin(b)); }
};

// A share of work below about two microseconds is not worth a second core.
int Chunks(double bytes, double products, int64_t panels) {
  const int threads = Pool::Get().threads();
  if (threads == 1) return 1;
  const double shares = bytes / 50e3 + products / 100e3;
  if (shares < 2) return 1;
  // A core that is taken away for a moment must not hold a whole half.
  const double each = std::min(4.0, std::max(1.0, shares / threads / 16));
  return (int)std::min<double>({shares, threads * std::floor(each), (double)panels});
}

// First panel of a chunk.
int64_t Share(int64_t panels, int chunk, int chunks) { return panels * chunk / chunks; }

template <typename W>
void Float(const float* x, const typename W::Type* panels, int64_t M, int64_t K, int64_t P,
           const Target& t) {
  const Blocks blocks(M, kRows);
  const double products = (double)M * K * P * kPanel;
  const int chunks = Chunks(sizeof(typename W::Type) * K * P * kPanel, products, P);
  const float* columns = x;
  if (M > 1) {
    float* turned = Scratch<float>(M * K);
    columns = turned;
    auto turn = [&](int64_t b) {
      const int R = blocks.rows(b);
      const float* from = x + blocks.begin(b) * K;
      float* to = turned + blocks.begin(b) * K;
      for (int64_t k = 0; k < K; ++k)
        for (int r = 0; r < R; ++r) to[k * R + r] = from[r * K + k];
    };
    Pool::Get().Run(M * K > 65536 ? (int)blocks.count : 1, [&](int c) {
      if (M * K > 65536) return turn(c);
      for (int64_t b = 0; b < blocks.count; ++b) turn(b);
    });
  }
  Pool::Get().Run(chunks, [&](int c) {
    const int64_t first = Share(P, c, chunks), last = Share(P, c + 1, chunks);
    // A panel stays in the nearest cache while all rows pass over it.
    const int64_t step = blocks.count > 1 ? 1 : last - first;
    for (int64_t p = first; p < last; p += step)
      for (int64_t b = 0; b < blocks.count; ++b)
        Rows<W>(blocks.rows(b), panels, columns + blocks.begin(b) * K, K, t, blocks.begin(b), p,
                p + step);
  });
}

#if MTJAX_DIGITS
void Digits(const float* x, const int8_t* panels, int64_t M, int64_t K, int64_t P,
            const Target& t) {
  const Blocks blocks(M, kDigitRows);
  const int64_t words = (K + 3) / 4 * kGroup;
  int32_t* all = Scratch<int32_t>(M * words);
  DigitRow* rows = Scratch<DigitRow>(M);
  auto convert = [&](int64_t b) {
    for (int r = 0; r < blocks.rows(b); ++r) {
      const int64_t row = blocks.begin(b) + r;
      rows[row] =
          ToDigits(x + row * K, K, r, blocks.rows(b), all + blocks.begin(b) * words);
    }
  };
  Pool::Get().Run(M * K > 16384 ? (int)blocks.count : 1, [&](int c) {
    if (M * K > 16384) return convert(c);
    for (int64_t b = 0; b < blocks.count; ++b) convert(b);
  });
  const int chunks = Chunks(K * P * kPanel, (double)M * K * P * kPanel, P);
  Pool::Get().Run(chunks, [&](int c) {
    const int64_t first = Share(P, c, chunks), last = Share(P, c + 1, chunks);
    const int64_t step = blocks.count > 1 ? 1 : last - first;
    for (int64_t p = first; p < last; p += step)
      for (int64_t b = 0; b < blocks.count; ++b)
        DigitRows(blocks.rows(b), panels, all + blocks.begin(b) * words, rows + blocks.begin(b), K,
                  t, blocks.begin(b), p, p + step);
  });
  for (int64_t row = 0; row < M; ++row)
    if (rows[row].unit < 0) Rows<I8>(1, panels, x + row * K, K, t, row, 0, P);
}
#endif

void Int8(const float* x, const int8_t* panels, int64_t M, int64_t K, int64_t P, const Target& t) {
#if MTJAX_DIGITS
  if (K < kDigitK) return Digits(x, panels, M, K, P, t);
#endif
  Float<I8>(x, panels, M, K, P, t);
}

ffi::Error Matmul(ffi::Buffer<ffi::F32> x, ffi::AnyBuffer panels, ffi::Buffer<ffi::F32> scale,
                  ffi::Result<ffi::Buffer<ffi::F32>> y) {
  const auto dims = x.dimensions(), shape = panels.dimensions(), out = y->dimensions();
  if (dims.size() != 2 || shape.size() != 3 || out.size() != 2 || shape[1] != dims[1] ||
      shape[2] != kPanel || out[0] != dims[0] || out[1] > shape[0] * kPanel)
    return ffi::Error::InvalidArgument("panel_matmul: shapes do not fit");
  const bool whole = panels.element_type() == ffi::S8;
  if (whole && (int64_t)scale.element_count() != out[1])
    return ffi::Error::InvalidArgument("panel_matmul: one scale for each output is needed");
  const Target t = {y->typed_data(), out[1], out[1], whole ? scale.typed_data() : nullptr};
  const float* rows = x.typed_data();
  const int64_t M = dims[0], K = dims[1], P = (out[1] + kPanel - 1) / kPanel;
  const void* weights = panels.untyped_data();
  if (whole) {
    Int8(rows, (const int8_t*)weights, M, K, P, t);
  } else if (panels.element_type() == ffi::BF16) {
    Float<BF16>(rows, (const uint16_t*)weights, M, K, P, t);
  } else if (panels.element_type() == ffi::F32) {
    Float<F32>(rows, (const float*)weights, M, K, P, t);
  } else {
    return ffi::Error::InvalidArgument("panel_matmul: weights must be F32, BF16 or S8");
  }
  return ffi::Error::Success();
}

}  // namespace
}  // namespace mtjax

XLA_FFI_DEFINE_HANDLER_SYMBOL(mtjax_panel_matmul, mtjax::Matmul,
                              ffi::Ffi::Bind()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>());

extern "C" int mtjax_threads() { return mtjax::Pool::Get().threads(); }

extern "C" void mtjax_set_threads(int threads) { mtjax::Pool::Get().set_threads(threads); }

// Reads `bytes` from `data` once, on all threads; the sum keeps the compiler honest.
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
