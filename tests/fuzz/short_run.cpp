// Every fuzz target for half a second at most, with each build and any compiler: what libFuzzer asks of main.cpp, asked
// by a program of its own. Inputs are changed from those of the corpus and from the changed ones that a reader has
// taken, the same every time. scripts/fuzz goes further: it is led by what an input reaches.
//
// A target runs in a process of its own. What breaks one is written to FOUND/TARGET-short, which scripts/fuzz's program
// takes as an argument. Usage: fuzz_short FOUND [TARGET...]; ends with `N passed, N failed, N skipped`.
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <random>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "fuzz/target.hpp"

extern "C" int LLVMFuzzerInitialize(int*, char*** arguments);
extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t most, unsigned seed);

namespace {

namespace fs = std::filesystem;

constexpr std::size_t longest = 16384;
constexpr int most_inputs = 3000;
constexpr std::clock_t most_time = CLOCKS_PER_SEC / 2;  // of the processor: a busy machine changes nothing

std::minstd_rand randomness;
std::size_t pick(std::size_t count) { return count == 0 ? 0 : randomness() % count; }

/// What the reader is at, for the process that waits.
struct current_input {
  std::size_t size;
  std::uint8_t bytes[longest];
};

std::vector<std::string> seeds_of(std::string const& target) {
  fs::path const state = fs::path{MIXBIT_GOLDEN_DIR} / "state/1";
  if (target == "state") return {mixbit::test::read_text(state / "state.json")};
  if (target == "state_tensors") return {mixbit::test::read_text(state / "state.safetensors")};
  std::set<fs::path> files;  // in one order everywhere
  for (auto const& entry : fs::directory_iterator{fs::path{MIXBIT_GOLDEN_DIR}.parent_path() / "fuzz/corpus" / target})
    files.insert(entry.path());
  std::vector<std::string> seeds;
  for (auto const& file : files) seeds.push_back(mixbit::test::read_text(file));
  return seeds;
}

/// Did the reader take it?
bool read(current_input& input, std::string const& text) {
  input.size = std::min(text.size(), longest);
  std::copy_n(text.data(), input.size, input.bytes);
  return mixbit::fuzz::takes(std::as_bytes(std::span{input.bytes, input.size}));
}

/// In its own process; how many inputs were read, or below 0.
int run(std::string const& target, current_input& input) {
  std::string name = target;
  char* arguments[] = {name.data(), nullptr};
  char** all = arguments;
  int count = 1;
  LLVMFuzzerInitialize(&count, &all);
  auto pool = seeds_of(target);
  for (auto const& seed : pool)
    if (!read(input, seed)) {
      std::printf("FAILED: fuzz %s: the reader refuses an input to begin with\n", target.c_str());
      return -1;
    }
  int inputs = static_cast<int>(pool.size());
  std::vector<std::uint8_t> buffer(longest);
  for (; inputs < most_inputs && std::clock() < most_time; ++inputs) {
    auto const& from = pool[pick(pool.size())];
    std::size_t size = std::min(from.size(), longest);
    std::copy_n(from.data(), size, buffer.data());
    for (std::size_t changes = 1 + pick(3); changes > 0; --changes)
      size = LLVMFuzzerCustomMutator(buffer.data(), size, longest, static_cast<unsigned>(randomness()));
    std::string text{reinterpret_cast<char const*>(buffer.data()), size};
    if (!read(input, text)) continue;
    if (pool.size() < 200) pool.push_back(std::move(text));
    else pool[pick(pool.size())] = std::move(text);
  }
  return inputs;
}

/// In a process of its own, which may crash or hang.
bool passes(std::string const& target, fs::path const& found) {
  auto* const shared = static_cast<current_input*>(
      ::mmap(nullptr, sizeof(current_input), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  std::fflush(nullptr);
  pid_t const child = ::fork();
  if (child == 0) {
    ::alarm(60);
    int const inputs = run(target, *shared);
    if (inputs > 0) std::printf("%s: %d inputs\n", target.c_str(), inputs);
    std::fflush(nullptr);
    std::exit(inputs > 0 ? 0 : 1);  // leaks are looked for
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  if (status != 0) {
    auto const file = found / (target + "-short");
    mixbit::test::write_text(file, {reinterpret_cast<char const*>(shared->bytes), shared->size});
    std::printf("FAILED: fuzz %s ends with status %d; what it read is in %s\n", target.c_str(), status, file.c_str());
  }
  ::munmap(shared, sizeof *shared);
  return status == 0;
}

}  // namespace

/// As scripts/fuzz tells libFuzzer.
extern "C" char const* __asan_default_options() { return "max_allocation_size_mb=256"; }

/// What libFuzzer would do to bytes: a bit, a byte, a number, a run that goes, comes or is repeated.
extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t most) {
  auto const at = pick(size), length = 1 + pick(std::min<std::size_t>(size - std::min(size, at), 8));
  switch (size == 0 ? 4 : pick(6)) {
    case 0: data[at] = static_cast<std::uint8_t>(data[at] ^ (1u << pick(8))); return size;
    case 1: data[at] = static_cast<std::uint8_t>(randomness()); return size;
    case 2: {
      std::uint64_t const all = ~std::uint64_t{0};
      std::uint64_t const numbers[] = {0,      1,          0x7f,       0x80,     0xff, 0x7fff,
                                       0xffff, 0x7fffffff, 0xffffffff, all >> 1, all,  size};
      std::memcpy(data + at, &numbers[pick(std::size(numbers))], std::min<std::size_t>(length, 8));
      return size;
    }
    case 3: {
      std::size_t const gone = std::min(length, size - at);
      std::memmove(data + at, data + at + gone, size - at - gone);
      return size - gone;
    }
    case 4: {
      if (size == most) return size;
      std::memmove(data + at + 1, data + at, size - at);
      data[at] = static_cast<std::uint8_t>(randomness());
      return size + 1;
    }
    default: {
      std::size_t const to = pick(size), some = std::min({length, size - at, size - to});
      std::memmove(data + to, data + at, some);
      return size;
    }
  }
}

int main(int count, char** arguments) {
  if (count < 2) return std::fputs("usage: fuzz_short FOUND [TARGET...]\n", stderr), 2;
  fs::create_directories(arguments[1]);
  if (::access("/dev/shm", W_OK) == 0) ::setenv("TMPDIR", "/dev/shm", 1);
  mixbit::test::temporary_folder const work;  // of what targets write: one that breaks leaves it
  ::setenv("TMPDIR", work.path().c_str(), 1);
  std::set<std::string> targets{arguments + 2, arguments + count};
  if (targets.empty())
    for (auto const* t = mixbit::fuzz::target::first(); t != nullptr; t = t->next) targets.emplace(t->name);
  int passed = 0, failed = 0;
  for (auto const& target : targets) ++(passes(target, arguments[1]) ? passed : failed);
  std::printf("%d passed, %d failed, 0 skipped\n", passed, failed);
  return failed != 0;
}
