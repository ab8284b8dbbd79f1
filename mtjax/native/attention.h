// Attention of a few fresh entries over committed slots and each other (see attention.py), as a
// custom call of XLA for CPUs.
//
// The rows of one key head, entries x heads of its group, lie side by side: scores are [slot, row],
// so that keys and values are read where they are, and each row has a lane of its own in the online
// softmax. Every number of a row is one chain of operations in the order of slots: its bits do not
// depend on other rows, other entries and threads.
#pragma once

#include <initializer_list>
#include <limits>

#include "call_frame.h"
#include "kernels.h"
#include "pool.h"

namespace mtjax {

// Rows that are processed together, and slots of a block: with the keys, the values and the sums
// they stay in the first cache. Whole numbers of vectors and of tiles.
constexpr int kAttentionRows = 48, kSlots = 48;
constexpr int kMaxWidth = 256;
constexpr float kNever = -std::numeric_limits<float>::infinity();

// exp(x) for x <= 0 within 2 units in the last place; 0 below the smallest normal number, and NaN
// of NaN.
//
// 2^n * exp(r) with |r| <= ln(2) / 2; the polynomial is that of Cephes' expf.
inline VF Exp(VF x) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: the sum's lowest bits are the whole number
  const VF shifted = x * 1.44269504089f + kRound;
  const VF n = shifted - kRound;
  const VF r = x - n * 0.693359375f + n * 2.12194440e-4f;
  VF y = r * 1.9875691500e-4f + 1.3981999507e-3f;
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  y = y * (r * r) + r + 1.0f;
  y *= (VF)(((VI)shifted << 23) + 0x3f800000);
  return x < -87.33654f ? VF{} : y;
}

// Two matrices: left [rows, count] at left[row * across + k * along], right [count, columns] with
// rows `stride` apart.
struct Factors {
  const float* left;
  int64_t across, along;
  const float* right;
  int64_t stride, count;
};

// Number of k between prefetches of a product.
constexpr int kTileBeat = 8;

// What is prefetched, at an even pace, during a product: `each` lines for every kTileBeat of k.
struct Ahead {
  const char *at, *end;
  int each;
};

// sums[r * pitch + c] += left right, for R rows and V vectors of columns.
template <int R, int V>
void Tile(const Factors& f, float* sums, int64_t pitch, Ahead& ahead) {
  VF acc[R][V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) acc[r][v] = *(const VFu*)(sums + r * pitch + v * kLanes);
  const float *left = f.left, *right = f.right;
  for (int64_t k = 0; k < f.count; k += kTileBeat) {
    for (int i = 0; i < ahead.each && ahead.at < ahead.end; ++i, ahead.at += kLine)
      __builtin_prefetch(ahead.at, 0, 2);
    const int64_t end = std::min<int64_t>(kTileBeat, f.count - k);
    for (int64_t i = 0; i < end; ++i, left += f.along, right += f.stride) {
      VF b[V];
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) {
        b[v] = *(const VFu*)(right + v * kLanes);
        Hold(b[v]);
      }
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) acc[r][v] += b[v] * left[r * f.across];
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) *(VFu*)(sums + r * pitch + v * kLanes) = acc[r][v];
}

// Twelve sums hide the latency of multiply-adds and leave registers for what they meet.
constexpr int kSums = 12;

template <int V, int R = V == 1 ? 8 : kSums / V>
void Columns(Factors f, int rows, float* sums, int64_t pitch, Ahead& ahead) {
  for (; rows >= R; rows -= R, f.left += R * f.across, sums += R * pitch)
    Tile<R, V>(f, sums, pitch, ahead);
  if constexpr (R > 1)
    if (rows > 0) Columns<V, R - 1>(f, rows, sums, pitch, ahead);
}

// sums [rows, columns] += left right; columns are whole vectors. next: memory to prefetch.
inline void AddProduct(Factors f, int rows, int64_t columns, float* sums, int64_t pitch,
                       const Next& next) {
  int64_t left = columns / kLanes;
  const int64_t beats = std::max<int64_t>(1, rows * left / kSums) * (f.count / kTileBeat + 1);
  Ahead ahead = {next.at, next.at + next.lines * kLine, (int)(next.lines / beats) + 1};
  while (left > 0) {
    const int now = left == 4 ? 2 : (int)std::min<int64_t>(left, 3);
    if (now == 3) Columns<3>(f, rows, sums, pitch, ahead);
    if (now == 2) Columns<2>(f, rows, sums, pitch, ahead);
    if (now == 1) Columns<1>(f, rows, sums, pitch, ahead);
    left -= now, f.right += now * kLanes, sums += now * kLanes;
  }
}

// Some rows of one key head, in the course of their softmax.
struct Softmax {
  int rows, width;  // width: of a head
  int64_t lanes;    // rows, up to whole vectors
  alignas(64) float query[kMaxWidth * kAttentionRows];  // [width, lanes], scaled
  alignas(64) float scores[kSlots * kAttentionRows];    // [slots, lanes]
  alignas(64) float sums[kAttentionRows * kMaxWidth];   // [rows, width]
  alignas(64) float top[kAttentionRows], total[kAttentionRows];

  void Start(int count, int D) {
    rows = count, width = D, lanes = (count + kLanes - 1) / kLanes * kLanes;
    std::memset(query, 0, D * lanes * sizeof(float));
    std::memset(sums, 0, rows * D * sizeof(float));
    std::fill_n(top, kAttentionRows, kNever);
    std::fill_n(total, kAttentionRows, 0.0f);
  }

  void Score(const float* keys, int slots, const Next& next = {}) {
    std::memset(scores, 0, slots * lanes * sizeof(float));
    AddProduct({keys, width, 1, query, lanes, width}, slots, lanes, scores, lanes, next);
  }

  // Extends the softmax over the slots that were scored (2112.05682, sec. 2).
  void Extend(const float* values, int slots, const Next& next = {}) {
    for (int64_t lane = 0; lane < lanes; lane += kLanes) {
      const VF before = *(const VFu*)(top + lane);
      VF most = before;
      float* column = scores + lane;
      for (int s = 0; s < slots; ++s) {
        const VF score = *(const VFu*)(column + s * lanes);
        most = score > most ? score : most;
      }
      // What to subtract: -inf - -inf would be NaN.
      const VF base = most == kNever ? VF{} : most;
      const VF keep = Exp(before - base);
      VF sum = *(const VFu*)(total + lane) * keep;
      for (int s = 0; s < slots; ++s) {
        const VF p = Exp(*(const VFu*)(column + s * lanes) - base);
        *(VFu*)(column + s * lanes) = p;
        sum += p;
      }
      *(VFu*)(top + lane) = most;
      *(VFu*)(total + lane) = sum;
      const int last = (int)std::min<int64_t>(kLanes, rows - lane);
      for (int r = 0; r < last; ++r)
        if (keep[r] != 1.0f) Multiply(sums + (lane + r) * width, keep[r]);
    }
    AddProduct({scores, 1, lanes, values, width, slots}, rows, width, sums, width, next);
  }

  void Multiply(float* row, float factor) {
    for (int d = 0; d < width; d += kLanes) *(VFu*)(row + d) *= factor;
  }

  // Writes the output of a row, and returns its log-sum-exp; 0 and -inf if it has seen nothing.
  float Finish(int row, float* out) {
    const float sum = total[row];
    const bool nothing = sum == 0.0f;
    for (int d = 0; d < width; ++d) out[d] = nothing ? 0.0f : sums[row * width + d] / sum;
    return nothing ? kNever : top[row] + __builtin_logf(sum);
  }
};

// The arrays of a call: q [B, T, H, D], cache [B, N, S, D], fresh [B, G, T, D], seen [B, T, T].
struct Attention {
  const float *q, *cache_k, *cache_v, *k, *v;
  const int32_t* lengths;
  const bool* seen;
  float scale;
  float *out, *lse;
  int64_t B, T, H, D, N, S, G, first_head;

  int64_t group() const { return H / G; }
  int64_t tiles() const { return (T * group() + kAttentionRows - 1) / kAttentionRows; }
  int64_t parts() const { return B * G * tiles(); }

  // Computes some rows of key head g of row b.
  void Part(int64_t part) const {
    const int64_t tile = part % tiles(), g = part / tiles() % G, b = part / tiles() / G;
    const int64_t rows = T * group(), first = rows * tile / tiles();
    const int count = (int)(rows * (tile + 1) / tiles() - first);
    Softmax softmax;
    softmax.Start(count, (int)D);
    auto place = [&](int r) {
      return (b * T + (first + r) / group()) * H + g * group() + (first + r) % group();
    };
    for (int r = 0; r < count; ++r) {
      const float* from = q + place(r) * D;
      for (int64_t d = 0; d < D; ++d) softmax.query[d * softmax.lanes + r] = from[d] * scale;
    }
    const int64_t head = (b * N + first_head + g) * S * D;
    const int64_t length = std::clamp<int64_t>(lengths[b], 0, S);
    for (int64_t s = 0; s < length; s += kSlots) {
      const int slots = (int)std::min<int64_t>(kSlots, length - s);
      const int64_t at = head + s * D;
      // The slots that follow, or at the end the first ones of the next head.
      int64_t skipped = kSlots * D, follow = std::min<int64_t>(kSlots, length - s - kSlots);
      if (follow <= 0) {
        skipped = (S - s) * D;
        follow = g + 1 < G ? std::min<int64_t>(kSlots, length) : 0;
      }
      auto next = [&](const float* cache) {
        return Next{(const char*)(cache + at + skipped), follow * D * 4 / kLine};
      };
      softmax.Score(cache_k + at, slots, next(cache_k));
      softmax.Extend(cache_v + at, slots, next(cache_v));
    }
    for (int64_t s = 0; s < T; s += kSlots) Fresh(softmax, b, g, first, s);
    for (int r = 0; r < count; ++r) lse[place(r)] = softmax.Finish(r, out + place(r) * D);
  }

  // Extends the softmax over fresh entries s, ..., of which each row sees some.
  void Fresh(Softmax& softmax, int64_t b, int64_t g, int64_t first, int64_t s) const {
    const int slots = (int)std::min<int64_t>(kSlots, T - s);
    bool used[kSlots] = {};
    for (int r = 0; r < softmax.rows; ++r) {
      const bool* sees = seen + (b * T + (first + r) / group()) * T + s;
      for (int j = 0; j < slots; ++j) used[j] |= sees[j];
    }
    if (std::find(used, used + slots, true) == used + slots) return;
    const int64_t entry = ((b * G + g) * T + s) * D;
    softmax.Score(k + entry, slots);
    for (int r = 0; r < softmax.rows; ++r) {
      const bool* sees = seen + (b * T + (first + r) / group()) * T + s;
      for (int j = 0; j < slots; ++j)
        if (!sees[j]) softmax.scores[j * softmax.lanes + r] = kNever;
    }
    // 0 * NaN is NaN: a zero weight does not protect from NaN in an entry that nobody sees.
    alignas(64) float values[kSlots * kMaxWidth];
    for (int j = 0; j < slots; ++j) {
      if (used[j]) {
        std::memcpy(values + j * D, v + entry + j * D, D * sizeof(float));
      } else {
        std::memset(values + j * D, 0, D * sizeof(float));
      }
    }
    softmax.Extend(values, slots);
  }
};

inline XLA_FFI_Error* Attend(const XLA_FFI_CallFrame* call) {
  if (call->args.size != 9 || call->rets.size != 2)
    return InvalidArgument(call, "attention: 9 operands and 2 results are needed");
  constexpr auto F32 = XLA_FFI_DataType_F32, S32 = XLA_FFI_DataType_S32;
  const XLA_FFI_DataType types[] = {F32, F32, F32, S32, S32, F32, F32, XLA_FFI_DataType_PRED, F32};
  const int ranks[] = {4, 4, 4, 1, 0, 4, 4, 3, 0};
  for (int i = 0; i < 9; ++i)
    if (Operand(call, i).dtype != types[i] || Operand(call, i).rank != ranks[i])
      return InvalidArgument(call, "attention: an operand has a wrong type or rank");
  const int64_t *q = Operand(call, 0).dims, *cache = Operand(call, 1).dims;
  const int64_t* fresh = Operand(call, 5).dims;
  const int64_t B = q[0], T = q[1], H = q[2], D = q[3], N = cache[1], S = cache[2], G = fresh[1];
  auto shaped = [&](int i, std::initializer_list<int64_t> shape) {
    return std::equal(shape.begin(), shape.end(), Operand(call, i).dims);
  };
  if (!shaped(1, {B, N, S, D}) || !shaped(2, {B, N, S, D}) || !shaped(3, {B}) ||
      !shaped(5, {B, G, T, D}) || !shaped(6, {B, G, T, D}) || !shaped(7, {B, T, T}) || G < 1 ||
      H % G || G > N || D % 16 || D < 1 || D > kMaxWidth ||
      Count(Output(call, 0)) != B * T * H * D || Count(Output(call, 1)) != B * T * H)
    return InvalidArgument(call, "attention: shapes do not fit");
  auto data = [&](int i) { return (const float*)Operand(call, i).data; };
  // As XLA's own slices do with an index that is out of range.
  const int64_t head = std::clamp<int64_t>(*(const int32_t*)Operand(call, 4).data, 0, N - G);
  const Attention a = {data(0), data(1), data(2), data(5), data(6),
                       (const int32_t*)Operand(call, 3).data, (const bool*)Operand(call, 7).data,
                       *data(8), (float*)Output(call, 0).data, (float*)Output(call, 1).data,
                       B, T, H, D, N, S, G, head};
  int64_t slots = 0;
  for (int64_t b = 0; b < B; ++b) slots += T + std::clamp<int64_t>(a.lengths[b], 0, S);
  const double read = 8.0 * slots * G * D, products = 2.0 * slots * T * H * D;
  const int64_t parts = a.parts();
  const int chunks = Chunks(read, products, parts);
  Pool::Get().Run(chunks, [&](int c) {
    for (int64_t part = parts * c / chunks; part < parts * (c + 1) / chunks; ++part) a.Part(part);
  });
  return nullptr;
}

}  // namespace mtjax
