// A fork/join pool for calls of tens of microseconds.
//
// The caller publishes a job, takes chunks of it itself, closes it, and waits only for helpers that
// have entered: a helper that the system has not scheduled costs nothing. Helpers spin for a
// moment after a job (the next matmul of a decoding step is microseconds away), yielding their core
// to other threads, then sleep. A second caller at the same time works alone.
//
// Threads are those of POSIX: a compiler takes longer to read <thread>, <mutex>, <chrono> and
// <condition_variable> than all of our code.
#pragma once

#include <pthread.h>
#include <sched.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace mtjax {

inline void Pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Helpers round and flush denormals as the caller does: a result does not depend on its thread.
inline unsigned FloatMode() {
#if defined(__x86_64__)
  return _mm_getcsr();
#else
  return 0;
#endif
}

inline void SetFloatMode(unsigned mode) {
#if defined(__x86_64__)
  _mm_setcsr(mode);
#else
  (void)mode;
#endif
}

class Pool {
 public:
  using Chunk = void (*)(const void* job, int chunk);

  // Never destroyed: helpers outlive static destructors.
  static Pool& Get() {
    static Pool* pool = new Pool;
    return *pool;
  }

  int threads() const { return threads_.load(std::memory_order_relaxed); }

  void set_threads(int threads) {
    pthread_mutex_lock(&caller_);
    threads = std::max(1, threads);
    for (pthread_t helper; started_ < threads - 1; ++started_) {
      if (pthread_create(&helper, nullptr, Begin, this)) break;
      pthread_detach(helper);
    }
    threads_ = std::min(threads, started_ + 1);
    pthread_mutex_unlock(&caller_);
  }

  template <typename F>
  void Run(int chunks, const F& f) {
    Chunk call = [](const void* job, int chunk) { (*static_cast<const F*>(job))(chunk); };
    if (chunks <= 1 || threads() == 1 || pthread_mutex_trylock(&caller_)) {
      for (int c = 0; c < chunks; ++c) f(c);
      return;
    }
    call_ = call;
    job_ = &f;
    chunks_ = chunks;
    mode_ = FloatMode();
    next_.store(0, std::memory_order_relaxed);
    open_.store(true);
    generation_.fetch_add(1);
    if (sleepers_.load() > 0) {
      pthread_mutex_lock(&sleep_);
      pthread_mutex_unlock(&sleep_);
      pthread_cond_broadcast(&wake_);
    }
    Work();
    open_.store(false);
    for (int spins = 0; active_.load() > 0;) {
      Pause();
      if (++spins % 256 == 0) sched_yield();
    }
    pthread_mutex_unlock(&caller_);
  }

 private:
  static constexpr int64_t kSpin = 500000;  // nanoseconds

  static int64_t Now() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
  }

  static void* Begin(void* pool) {
    Pool* self = static_cast<Pool*>(pool);
    self->Help(self->helpers_.fetch_add(1) + 1);
    return nullptr;
  }

  void Work() {
    for (int c; (c = next_.fetch_add(1, std::memory_order_relaxed)) < chunks_;) call_(job_, c);
  }

  void Help(int id) {
    for (unsigned seen = generation_.load();;) {
      Wait(seen);
      seen = generation_.load();
      if (id >= threads()) continue;
      active_.fetch_add(1);
      if (open_.load()) {
        SetFloatMode(mode_);
        Work();
      }
      active_.fetch_sub(1);
    }
  }

  void Wait(unsigned seen) {
    const int64_t end = Now() + kSpin;
    do {
      for (int i = 0; i < 128; ++i) {
        if (generation_.load(std::memory_order_relaxed) != seen) return;
        Pause();
      }
      sched_yield();
    } while (Now() < end);
    pthread_mutex_lock(&sleep_);
    sleepers_.fetch_add(1);
    while (generation_.load() == seen) pthread_cond_wait(&wake_, &sleep_);
    sleepers_.fetch_sub(1);
    pthread_mutex_unlock(&sleep_);
  }

  Pool() = default;

  alignas(64) std::atomic<unsigned> generation_{0};
  alignas(64) std::atomic<int> next_{0};
  alignas(64) std::atomic<int> active_{0};
  std::atomic<bool> open_{false};
  alignas(64) Chunk call_ = nullptr;
  const void* job_ = nullptr;
  int chunks_ = 0;
  unsigned mode_ = 0;
  std::atomic<int> threads_{1};
  alignas(64) pthread_mutex_t caller_ = PTHREAD_MUTEX_INITIALIZER;
  int started_ = 0;
  std::atomic<int> helpers_{0};
  pthread_mutex_t sleep_ = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t wake_ = PTHREAD_COND_INITIALIZER;
  std::atomic<int> sleepers_{0};
};

// How many pieces work is dealt in that reads so many bytes, computes so many products, and has so
// many parts. A share of work below about two microseconds is not worth a second core.
inline int Chunks(double bytes, double products, int64_t parts) {
  const int threads = Pool::Get().threads();
  const double shares = bytes / 50e3 + products / 100e3;
  if (threads == 1 || shares < 2) return 1;
  // A core that is taken away for a moment must not hold a whole half of a long product.
  const int each = (int)std::min(4.0, std::max(1.0, shares / threads / 16));
  return (int)std::min({shares, (double)(threads * each), (double)parts});
}

}  // namespace mtjax
