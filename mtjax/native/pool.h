// A fork/join pool for calls of tens of microseconds.
//
// The caller publishes a job, takes chunks of it itself, closes it, and waits only for helpers that
// have entered: a helper that the system has not scheduled costs nothing. Helpers spin for a
// moment after a job (the next matmul of a decoding step is microseconds away), yielding their core
// to other threads, then sleep. A second caller at the same time works alone.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#if defined(__x86_64__)
#include <immintrin.h>
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
    std::lock_guard<std::mutex> lock(caller_);
    threads = std::max(1, threads);
    for (; started_ < threads - 1; ++started_) {
      std::thread([this, id = started_ + 1] { Help(id); }).detach();
    }
    threads_ = threads;
  }

  template <typename F>
  void Run(int chunks, const F& f) {
    Chunk call = [](const void* job, int chunk) { (*static_cast<const F*>(job))(chunk); };
    if (chunks <= 1 || threads() == 1 || !caller_.try_lock()) {
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
      { std::lock_guard<std::mutex> lock(sleep_); }
      wake_.notify_all();
    }
    Work();
    open_.store(false);
    for (int spins = 0; active_.load() > 0;) {
      Pause();
      if (++spins % 256 == 0) std::this_thread::yield();
    }
    caller_.unlock();
  }

 private:
  static constexpr auto kSpin = std::chrono::microseconds(500);

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
    auto end = std::chrono::steady_clock::now() + kSpin;
    do {
      for (int i = 0; i < 128; ++i) {
        if (generation_.load(std::memory_order_relaxed) != seen) return;
        Pause();
      }
      std::this_thread::yield();
    } while (std::chrono::steady_clock::now() < end);
    std::unique_lock<std::mutex> lock(sleep_);
    sleepers_.fetch_add(1);
    wake_.wait(lock, [&] { return generation_.load() != seen; });
    sleepers_.fetch_sub(1);
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
  alignas(64) std::mutex caller_;
  int started_ = 0;
  std::mutex sleep_;
  std::condition_variable wake_;
  std::atomic<int> sleepers_{0};
};

}  // namespace mtjax
