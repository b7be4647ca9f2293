// The executor that comes with the library. A header of its own, which the CPU backends include: those of threads are
// among the standard library's dearest to compile, and what else quantizes a model needs none of them.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "mixbit/core/error.hpp"
#include "mixbit/core/executor.hpp"
#include "mixbit/core/function_ref.hpp"

namespace mixbit {

/// A fixed set of std::threads; the calling thread works too, so `thread_pool{1}` starts none.
/// One loop at a time: a call from inside a loop runs on the calling thread.
class thread_pool {
 public:
  /// Throws `memory_exhausted` where memory or threads run out; those that were started are gone then.
  explicit thread_pool(int threads = static_cast<int>(std::thread::hardware_concurrency())) {
    try {
      if (threads > 1) workers_.reserve(static_cast<std::size_t>(threads) - 1);
      for (int i = 1; i < threads; ++i) workers_.emplace_back([this] { work(); });
    } catch (std::exception const& e) {
      stop();
      fail(error_id::memory_exhausted, "thread pool: only ", workers_.size() + 1, " of ", threads,
           " threads start: ", e.what());
    }
  }
  thread_pool(thread_pool const&) = delete;
  thread_pool& operator=(thread_pool const&) = delete;
  ~thread_pool() { stop(); }

  int concurrency() const { return static_cast<int>(workers_.size()) + 1; }

  void parallel_for(std::int64_t n, function_ref<void(std::int64_t)> f) {
    if (n <= 0) return;
    if (n == 1 || workers_.empty() || busy_.exchange(true)) {
      for (std::int64_t i = 0; i < n; ++i) f(i);
      return;
    }
    loop current{f, n};
    {
      std::lock_guard lock{mutex_};
      current_ = &current;
      ++generation_;
    }
    wake_.notify_all();
    run(current);
    {
      std::unique_lock lock{mutex_};
      current_ = nullptr;  // no worker may join any more
      done_.wait(lock, [&] { return current.inside == 0; });
    }
    busy_ = false;
    if (current.failure) std::rethrow_exception(current.failure);
  }

 private:
  void stop() {
    {
      std::lock_guard lock{mutex_};
      stopping_ = true;
    }
    wake_.notify_all();
    for (auto& worker : workers_) worker.join();
  }

  struct loop {
    function_ref<void(std::int64_t)> body;
    std::int64_t size;
    std::atomic<std::int64_t> next{0};
    int inside = 0;  // workers in this loop, guarded by mutex_
    std::exception_ptr failure{};
    std::mutex failure_mutex{};
  };

  static void run(loop& l) {
    for (std::int64_t i; (i = l.next.fetch_add(1)) < l.size;) {
      try {
        l.body(i);
      } catch (...) {
        l.next = l.size;  // the rest is not started
        std::lock_guard lock{l.failure_mutex};
        if (!l.failure) l.failure = std::current_exception();
      }
    }
  }

  void work() {
    std::uint64_t seen = 0;
    std::unique_lock lock{mutex_};
    for (;;) {
      wake_.wait(lock, [&] { return stopping_ || (current_ && generation_ != seen); });
      if (stopping_) return;
      seen = generation_;
      loop& l = *current_;
      ++l.inside;
      lock.unlock();
      run(l);
      lock.lock();
      if (--l.inside == 0) done_.notify_one();
    }
  }

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_, done_;
  loop* current_ = nullptr;
  std::uint64_t generation_ = 0;
  bool stopping_ = false;
  std::atomic<bool> busy_{false};
};

}  // namespace mixbit
