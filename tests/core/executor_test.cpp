#include "mixbit/core/thread_pool.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <stdexcept>
#include <string>
#include <vector>

using namespace mixbit;

namespace {

/// How often each index of a loop of n was called.
template <class E>
std::vector<int> counts(E& e, std::int64_t n) {
  std::vector<std::atomic<int>> seen(static_cast<std::size_t>(n));
  e.parallel_for(n, [&](std::int64_t i) { ++seen[static_cast<std::size_t>(i)]; });
  return {seen.begin(), seen.end()};
}

template <class E>
void check_every_index_once(E& e) {
  for (std::int64_t n : {0, 1, 2, 3, 7, 64, 1001})
    CHECK(counts(e, n) == std::vector<int>(static_cast<std::size_t>(n), 1));
}

/// An executor of a host's own: everything backwards.
struct backwards {
  void parallel_for(std::int64_t n, function_ref<void(std::int64_t)> f) {
    while (n-- > 0) f(n);
  }
  unsigned concurrency() const { return 5; }
};

static_assert(executor<inline_executor>);
static_assert(executor<thread_pool>);
static_assert(executor<backwards>);
static_assert(!executor<int>);

}  // namespace

TEST_CASE("executors: every index once, whatever runs them") {
  inline_executor here;
  check_every_index_once(here);
  CHECK(here.concurrency() == 1);
  backwards own;
  check_every_index_once(own);
  for (int threads : {0, 1, 2, 3}) {
    thread_pool pool{threads};
    CHECK(pool.concurrency() == std::max(threads, 1));
    for (int repeat = 0; repeat < 20; ++repeat) check_every_index_once(pool);
  }
}

TEST_CASE("thread_pool: several threads work, the calling one too") {
  thread_pool pool{3};
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<std::thread::id> seen;
  pool.parallel_for(3, [&](std::int64_t) {  // each of the three waits for the others
    std::unique_lock lock{mutex};
    seen.push_back(std::this_thread::get_id());
    changed.notify_all();
    changed.wait(lock, [&] { return seen.size() == 3; });
  });
  CHECK(seen.size() == 3);
  CHECK(seen[0] != seen[1]);
  CHECK(seen[1] != seen[2]);
  CHECK(std::count(seen.begin(), seen.end(), std::this_thread::get_id()) == 1);
}

TEST_CASE("thread_pool: one of the exceptions comes out, and the pool works on") {
  for (int threads : {1, 2, 3}) {
    thread_pool pool{threads};
    for (int repeat = 0; repeat < 20; ++repeat) {
      std::string what;
      try {
        pool.parallel_for(100, [](std::int64_t i) {
          if (i % 10 == 3) throw std::runtime_error{"at " + std::to_string(i)};
        });
      } catch (std::runtime_error const& e) {
        what = e.what();
      }
      CHECK(what.rfind("at ", 0) == 0);
      CHECK(what.back() == '3');
      CHECK(counts(pool, 50) == std::vector<int>(50, 1));
    }
  }
}

TEST_CASE("thread_pool: a loop inside a loop runs where it is called") {
  thread_pool pool{3};
  std::vector<std::atomic<int>> seen(8 * 9);
  std::atomic<int> elsewhere{0};
  pool.parallel_for(8, [&](std::int64_t i) {
    auto const outer = std::this_thread::get_id();
    pool.parallel_for(9, [&](std::int64_t k) {
      ++seen[static_cast<std::size_t>(i * 9 + k)];
      elsewhere += std::this_thread::get_id() != outer;
    });
  });
  CHECK(std::vector<int>{seen.begin(), seen.end()} == std::vector<int>(72, 1));
  CHECK(elsewhere == 0);
}

TEST_CASE("thread_pool: callers on several threads do not disturb each other") {
  thread_pool pool{2};
  std::vector<std::thread> callers;
  std::atomic<int> right{0};
  for (int c = 0; c < 4; ++c)
    callers.emplace_back([&] {
      for (int repeat = 0; repeat < 25; ++repeat) right += counts(pool, 40) == std::vector<int>(40, 1);
    });
  for (auto& c : callers) c.join();
  CHECK(right == 100);
}

TEST_CASE("executor_ref: lends any executor, and is the calling thread by default") {
  executor_ref nobody;
  CHECK(nobody.concurrency() == 1);
  CHECK(counts(nobody, 9) == std::vector<int>(9, 1));
  backwards own;
  executor_ref const lent{own};
  CHECK(lent.concurrency() == 5);
  std::vector<std::int64_t> order;
  lent.parallel_for(3, [&](std::int64_t i) { order.push_back(i); });
  CHECK(order == std::vector<std::int64_t>{2, 1, 0});
  executor_ref const copy = lent;
  CHECK(copy.concurrency() == 5);
  thread_pool pool{2};
  executor_ref to_pool{pool};
  check_every_index_once(to_pool);
}
