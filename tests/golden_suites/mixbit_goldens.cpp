// mixbit_goldens [DIR]: every golden suite on a folder of tests/golden's shape. A suite whose files are not there is
// skipped, one whose files are not what it reads fails. A line a suite, then `N passed, N failed, N skipped`.
// Exit status 1 for a failure, 2 for wrong arguments and for a folder that holds nothing to compare.
#include <cstdio>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "golden_suites/algorithms.hpp"
#include "golden_suites/blocks.hpp"
#include "golden_suites/calibrators.hpp"
#include "golden_suites/cpu.hpp"
#include "golden_suites/export.hpp"
#include "golden_suites/fake_quant.hpp"
#include "golden_suites/lm.hpp"
#include "golden_suites/lm_autoquant.hpp"
#include "golden_suites/pack.hpp"
#include "golden_suites/presets.hpp"
#include "golden_suites/resolved.hpp"
#include "golden_suites/rewritten_weights.hpp"
#include "golden_suites/validation.hpp"

namespace {

using path = std::filesystem::path;

struct suite {
  char const* name;
  std::vector<char const*> files;
  std::function<suite_result(path const&)> run;
};

std::vector<suite> suites() {
  path const data = MIXBIT_DATA_DIR;
  auto const on = [](suite_result (*suite)(path const&, golden::cpu const&), bool vectors) {
    return [=](path const& dir) { return suite(dir, {{}, vectors}); };
  };
  return {{"presets", {"presets.json"}, run_presets},
          {"validation", {"validation.json"}, run_validation},
          {"resolved", {"resolved.json"}, run_resolved},
          {"fake_quant", {"fake_quant.json", "fake_quant.safetensors"}, on(run_fake_quant<golden::cpu>, false)},
          {"fake_quant on simd", {"fake_quant.json", "fake_quant.safetensors"}, on(run_fake_quant<golden::cpu>, true)},
          {"blocks", {"blocks.json", "blocks.safetensors"}, on(run_blocks<golden::cpu>, false)},
          {"blocks on simd", {"blocks.json", "blocks.safetensors"}, on(run_blocks<golden::cpu>, true)},
          {"calibrators", {"calibrators.json", "calibrators.safetensors"}, run_calibrators},
          {"pack", {"pack.json", "pack.safetensors"}, on(run_pack<golden::cpu>, false)},
          {"pack on simd", {"pack.json", "pack.safetensors"}, on(run_pack<golden::cpu>, true)},
          {"rewritten_weights", {"algorithms.json", "algorithms.safetensors"}, run_rewritten_weights},
          {"algorithms", {"algorithms.json", "algorithms.safetensors"}, run_algorithms},
          {"lm", {"lm.json", "lm.safetensors"}, [=](path const& dir) { return run_lm(dir, data); }},
          {"lm_autoquant", {"lm_autoquant.json", "lm.json", "lm.safetensors"},
           [=](path const& dir) { return run_lm_autoquant(dir, data); }},
          {"export", {"export"}, [=](path const& dir) { return run_export(dir, data / "byte-lm"); }}};
}

suite_result run(suite const& s, path const& dir) {
  suite_result result{.name = s.name};
  for (char const* file : s.files)
    if (!std::filesystem::exists(dir / file)) {
      result.skip(1, std::string{file} + " is not in " + dir.string());
      return result;
    }
  try {
    result = s.run(dir);
    if (result.passed + result.failed + result.skipped == 0) result.check(false, "the suite holds no case");
  } catch (std::exception const& e) {
    std::string const what = reason_of(e), file = (dir / s.files.front()).string();
    bool const names_file = what.find(dir.string()) != what.npos;
    result.check(false, names_file ? what : file + ": " + what);
  }
  return result;
}

int refuse(std::string const& what) {
  std::fprintf(stderr, "mixbit_goldens: %s\n", what.c_str());
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::string_view{argv[1]} == "--help")
    return std::puts("mixbit_goldens [DIR]: compares with the golden files of a folder, or of the project's copy"), 0;
  path const dir = argc > 1 ? path{argv[1]} : path{MIXBIT_GOLDEN_DIR};
  if (argc > 2) return refuse("there is one argument at most, a folder of golden files, and '" + std::string{argv[2]} +
                              "' is another");
  std::error_code ignored;
  if (!std::filesystem::is_directory(dir, ignored)) return refuse("'" + dir.string() + "' is not a folder");
  int passed = 0, failed = 0, skipped = 0;
  for (auto const& s : suites()) {
    auto const r = run(s, dir);
    std::printf("%s: %d passed, %d failed, %d skipped\n", s.name, r.passed, r.failed, r.skipped);
    for (auto const& m : r.messages) std::printf("  %s\n", m.c_str());
    std::fflush(stdout);
    passed += r.passed, failed += r.failed, skipped += r.skipped;
  }
  std::printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped);
  if (passed + failed == 0) return refuse("'" + dir.string() + "' holds no golden files: no suite could run");
  return failed == 0 ? 0 : 1;
}
