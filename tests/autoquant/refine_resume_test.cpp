// A refinement that is cut short at every write goes on to the same result, and runs nothing that was kept.
#include <doctest/doctest.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "mixbit/autoquant/refine.hpp"
#include "mixbit/io/search_folder.hpp"
#include "support/error_text.hpp"
#include "support/named_chain.hpp"
#include "support/temporary_folder.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

/// A folder, and no more after so many writes of parts.
class stopping_folder final : public search_checkpoint {
 public:
  stopping_folder(std::filesystem::path const& folder, int writes) : inner_{folder}, left_{writes} {}
  void begin(search_facts const& facts) override { inner_.begin(facts); }
  bool load_calibration(kept_calibration& c) override { return inner_.load_calibration(c); }
  void save_calibration(kept_calibration const& c) override { inner_.save_calibration(c); }
  std::optional<kept_scores> load_scores() override { return inner_.load_scores(); }
  void save_scores(kept_scores const& s) override { inner_.save_scores(s); }
  std::optional<kept_scores> load_part(std::string const& name) override { return inner_.load_part(name); }
  void save_part(std::string const& name, kept_scores const& s) override {
    if (left_-- == 0) throw std::runtime_error{"stopped"};
    inner_.save_part(name, s);
  }

 private:
  search_folder inner_;
  int left_;
};

struct refined_run {
  std::optional<refined_choice> made;  ///< empty: it was stopped
  int forwards = 0;                    ///< of the refinement
  std::vector<std::string> phases;
};

refined_run run_once(std::shared_ptr<search_checkpoint> checkpoint, double target = 16.0) {
  named_chain net{{"a", "b", "c", "d"}};
  model<cpu_backend> m{net};
  search_options o{.formats = {preset("INT4_BLOCKWISE_WEIGHT_ONLY_CFG"), preset("INT8_DEFAULT_CFG")}, .target = target};
  o.checkpoint = std::move(checkpoint);
  search<cpu_backend> s{m, o};
  auto steps = net.steps(2, 3);
  s.run(steps);
  refined_run r;
  auto const is_quantized = [&](std::size_t layer) {
    return !site_of(net.layers[layer]).quantizers().recipe.starts_with("NONE");
  };
  // quantizing b helps once a is quantized, so that a second round finds it
  steps.metric = [&](int i) {
    ++r.forwards;
    return 10.0 + i - (is_quantized(0) ? 5 : 0) + (is_quantized(1) ? (is_quantized(0) ? -3 : 1) : 0);
  };
  steps.progress = [&](std::string_view phase, int, int) {
    if (r.phases.empty() || r.phases.back() != phase) r.phases.emplace_back(phase);
  };
  try {
    r.made = refine(s, s.choose(), steps, [&] { return steps.metric(9); }, {.rounds = 4});
  } catch (std::runtime_error const& e) {
    if (std::string{e.what()} != "stopped") throw;
  }
  return r;
}

void check_same(refined_choice const& a, refined_choice const& b) {
  CHECK(to_text(a) == to_text(b));
  CHECK(a.best.choice == b.best.choice);
  CHECK(a.measured == b.measured);
  REQUIRE(a.attempts.size() == b.attempts.size());
  for (std::size_t i = 0; i < a.attempts.size(); ++i) {
    CHECK(a.attempts[i].predicted == b.attempts[i].predicted);
    CHECK(a.attempts[i].measured == b.attempts[i].measured);
  }
}

}  // namespace

TEST_CASE("refine: stopped at every write it goes on to the same result") {
  temporary_folder const folder;
  auto const whole = run_once(nullptr);
  REQUIRE(whole.made.has_value());
  CHECK_FALSE(whole.made->attempts.empty());
  CHECK(whole.phases == std::vector<std::string>{"refine round 1", "refine round 2", "refine round 3"});
  int stops = 0;
  for (;; ++stops) {
    auto const again = run_once(std::make_shared<stopping_folder>(folder.path() / "run", 1));
    if (again.made) break;
    REQUIRE(stops < 100);
  }
  CHECK(stops > 5);
  auto const done = run_once(std::make_shared<search_folder>(folder.path() / "run"));
  check_same(*done.made, *whole.made);
  CHECK(done.forwards == 0);
  CHECK(done.phases.empty());
  auto const other = run_once(std::make_shared<search_folder>(folder.path() / "run"), 14.0);
  CHECK(other.forwards > 0);  // another budget is another refinement
  check_same(*other.made, *run_once(nullptr, 14.0).made);
  check_same(*run_once(std::make_shared<search_folder>(folder.path() / "run")).made, *whole.made);
}

TEST_CASE("refine: what was kept of another refinement is refused") {
  temporary_folder const folder;
  run_once(std::make_shared<search_folder>(folder.path() / "run"));
  std::vector<std::filesystem::path> parts;
  for (auto const& entry : std::filesystem::directory_iterator{folder.path() / "run"})
    if (entry.path().filename().string().starts_with("part-")) parts.push_back(entry.path());
  REQUIRE(parts.size() >= 2);
  std::filesystem::copy_file(parts[0], parts[1], std::filesystem::copy_options::overwrite_existing);
  auto const again = [&] { run_once(std::make_shared<search_folder>(folder.path() / "run")); };
  CHECK(says(error_text(error_id::file_content, again), parts[1].filename().string(),
             "'of' is 'refine by degradation"));
}
