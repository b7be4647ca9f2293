// Searches that are cut short at every point, by a signal that no program survives, and go on to the same bits.
#include "mixbit/io/search_folder.hpp"

#include <doctest/doctest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <memory>

#include "mixbit/autoquant/json.hpp"
#include "mixbit/model/json.hpp"
#include "support/error_text.hpp"
#include "support/file_size_limit.hpp"
#include "support/plain_linalg.hpp"
#include "support/small_network.hpp"
#include "support/temporary_folder.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

matrix batch_of(int i) { return outliers(24, 32, 7 + static_cast<unsigned>(i)); }

quantize_config format_of(std::string const& preset_name, std::string const& method) {
  auto config = preset(preset_name);
  config.algorithm = method;
  config.name = preset_name + " by " + method;
  return config;
}

/// By max, by statistics of inputs, with a weight of its own, with a branch.
std::vector<quantize_config> all_kinds() {
  return {preset("FP8_DEFAULT_CFG"), preset("INT8_DEFAULT_CFG"),
          format_of("INT4_BLOCKWISE_WEIGHT_ONLY_CFG", "awq_lite"), format_of("INT8_DEFAULT_CFG", "gptq"),
          format_of("INT4_BLOCKWISE_WEIGHT_ONLY_CFG", "svdquant")};
}

/// Passes everything on to a folder, and says before and after each write that it comes.
class watched_folder final : public search_checkpoint {
 public:
  watched_folder(std::filesystem::path const& folder, std::function<void()> event)
      : inner_{folder, {{"text", "one"}}}, event_{std::move(event)} {}
  void begin(search_facts const& facts) override {
    event_();
    inner_.begin(facts);
    event_();
  }
  bool load_calibration(kept_calibration& c) override { return inner_.load_calibration(c); }
  void save_calibration(kept_calibration const& c) override {
    event_();
    inner_.save_calibration(c);
    event_();
  }
  std::optional<kept_scores> load_scores() override { return inner_.load_scores(); }
  void save_scores(kept_scores const& s) override {
    event_();
    inner_.save_scores(s);
    event_();
  }

 private:
  search_folder inner_;
  std::function<void()> event_;
};

/// A search over a small network that tells of each call of the host and of each write.
struct run_of {
  small_network net{};
  score_method method = score_method::gradient;
  std::vector<quantize_config> formats = all_kinds();
  double target = 8.0;
  int calibration = 2, scoring = 3, calls = 0;
  std::vector<grouping_rule> grouping = {};
  std::function<void()> event = [] {};
  std::shared_ptr<search_checkpoint> checkpoint = {};

  void in(std::filesystem::path const& folder) {
    checkpoint = std::make_shared<watched_folder>(folder, [this] { event(); });
  }
  search_steps steps() {
    auto const tell = [this] {
      ++calls;
      event();
    };
    search_steps s{.calibration = calibration, .scoring = scoring};
    s.calibrate = [=, this](int i) {
      tell();
      net.forward(batch_of(i));
    };
    s.score = [=, this](int i) {
      tell();
      net.forward(batch_of(i));
      net.backward(random_matrix(24, 8, 20 + static_cast<unsigned>(i)));
    };
    s.logits = [=, this](int i, logits_sink const& take) {
      tell();
      matrix const y = net.forward(batch_of(i));
      take(read_view(y));
    };
    s.metric = [=, this](int i) {
      tell();
      return static_cast<double>(net.forward(batch_of(i)).cwiseAbs().sum());
    };
    return s;
  }
  /// All that the search leaves: statistics, plan, manifest, notes, and under each format quantizers and outputs.
  std::string result() {
    model_options<cpu_backend> options;
    options.linalg = plain_linalg{};
    model<cpu_backend> m{net, options};
    search<cpu_backend> s{m, {.formats = formats,
                              .target = target,
                              .grouping = grouping,
                              .method = method,
                              .checkpoint = checkpoint}};
    s.run(steps());
    auto const plan = s.plan(s.choose(target));
    std::string text = to_json(s.stats()).dump() + to_json(plan).dump() + manifest_json(s.stats(), plan).dump();
    for (int k = 0; k < static_cast<int>(formats.size()); ++k) {
      s.apply({std::vector<int>(s.stats().size(), k)});
      text += quantizers_json(m).dump();
      matrix const y = net.forward(batch_of(9));
      text.append(reinterpret_cast<char const*>(y.data()), static_cast<std::size_t>(y.size()) * sizeof(float));
      for (auto const& l : calibration_tokens(m).layers) text += l.layer + std::to_string(l.tokens);
    }
    return text;
  }
};

/// Runs it in a process of its own, which is killed at its event `at`; false where it came to its end before.
bool is_killed(std::filesystem::path const& folder, score_method method, int at) {
  pid_t const child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    run_of r;
    r.method = method;
    r.event = [&, n = 0]() mutable {
      if (n++ == at) ::kill(::getpid(), SIGKILL);
    };
    r.in(folder);
    r.result();
    ::_exit(0);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
}

std::string uninterrupted(score_method method) {
  run_of r;
  r.method = method;
  return r.result();
}

}  // namespace

TEST_CASE("search folder: killed at any point, a search goes on to the same bits") {
  auto const method = score_method::gradient;
  auto const whole = uninterrupted(method);
  int at = 0;
  for (;; ++at) {
    temporary_folder const folder;
    if (!is_killed(folder / "run", method, at)) break;
    run_of r;
    r.in(folder / "run");
    CHECK_MESSAGE(r.result() == whole, at);
  }
  CHECK(at > 25);  // calls of the host, and before and after each write
}

TEST_CASE("search folder: killed again and again it comes to the same end, by the other methods too") {
  for (auto const method : {score_method::kl_div, score_method::degradation}) {
    temporary_folder const folder;
    int kills = 0;
    while (kills < 100 && is_killed(folder / "run", method, 15)) ++kills;  // to begin 2 events, a step 11 and 2
    CHECK(kills > 2);
    CHECK(kills < 100);
    run_of r;
    r.method = method;
    r.in(folder / "run");
    CHECK(r.result() == uninterrupted(method));
    CHECK(r.calls == 0);  // all of it is there
  }
}

TEST_CASE("search folder: what is done is not done again, and serves another budget") {
  temporary_folder const folder;
  run_of first;
  first.in(folder.path());
  int events = 0;
  first.event = [&] {
    if (++events == 18) throw std::runtime_error{"cut short"};
  };
  matrix const before = first.net.forward(batch_of(9));
  CHECK_THROWS_WITH(first.result(), "cut short");
  CHECK(same_bits(before, first.net.forward(batch_of(9))));
  int const done = first.calls;
  run_of second;
  second.in(folder.path());
  second.result();
  run_of whole;
  whole.result();
  CHECK(second.calls < whole.calls);
  CHECK(second.calls + done >= whole.calls);
  run_of other;
  other.target = 7.5;
  other.in(folder.path());
  run_of anew;
  anew.target = 7.5;
  CHECK(other.result() == anew.result());
  CHECK(other.calls == 0);
}

TEST_CASE("search folder: attributes that a calibration changed and static biases come back") {
  for (bool const affine : {false, true}) {
    auto const with = [&](std::shared_ptr<search_checkpoint> checkpoint) {
      run_of r;
      r.target = 9.0;
      auto headroom = format_of("NVFP4_DEFAULT_CFG", "nvfp4_act_headroom");
      auto biased = preset("INT8_DEFAULT_CFG");
      biased.name = "AFFINE";
      quantizer_attribute_config const a{
          .num_bits = 8,
          .bias = bias_config{.axes = {-1, -2}, .type = quantizer_type::static_type, .method = bias_method::mean}};
      biased.entries.push_back({.quantizer_name = "*input_quantizer", .cfg = std::vector{a}});
      r.formats = {preset("FP8_DEFAULT_CFG"), affine ? biased : headroom};
      r.checkpoint = std::move(checkpoint);
      return r.result();
    };
    temporary_folder const folder;
    auto const in = [&] { return std::make_shared<search_folder>(folder.path()); };
    auto const whole = with(nullptr);
    CHECK(with(in()) == whole);
    CHECK(with(in()) == whole);
  }
}

TEST_CASE("search folder: of another search it is refused, saying what has changed, and stays as it is") {
  temporary_folder const folder;
  run_of first;
  first.in(folder.path());
  first.result();
  auto const kept = listing(folder.path());
  auto const refusal = [&](auto const& change) {
    run_of r;
    change(r);
    if (!r.checkpoint) r.in(folder.path());
    auto const text = error_text(error_id::file_content, [&] { r.result(); });
    CHECK(r.calls == 0);
    return text;
  };
  CHECK(says(refusal([](run_of& r) { r.formats[1].entries.back().enable = true; }), "search.json",
             "formats.INT8_DEFAULT_CFG(effective-bits: 8.0).quant_cfg", "and was", "give another folder"));
  CHECK(says(refusal([](run_of& r) { r.formats[3].algorithm = "mse"; }), "algorithm", "\"mse\"", "\"gptq\""));
  CHECK(says(refusal([](run_of& r) { r.formats.pop_back(); }), "formats has 4 member(s), and had 5"));
  CHECK(says(refusal([](run_of& r) { r.formats[1].name = "MINE"; }), "formats has 'MINE"));
  auto const both = grouping_rule{"all", [](std::string_view) { return std::string{"all"}; }};
  auto const regrouped = refusal([&](run_of& r) { r.grouping = {both}; });
  CHECK(says(regrouped, "groups has 1 member(s), and had 2"));
  CHECK(says(refusal([](run_of& r) { r.net.second.weight(1, 2) += 0.5f; }), "weights.second is", "and was"));
  CHECK(says(refusal([](run_of& r) { r.calibration = 4; }), "options.calibration steps is \"4\", and was \"2\""));
  CHECK(says(refusal([](run_of& r) { r.scoring = 2; }), "options.scoring steps"));
  CHECK(says(refusal([](run_of& r) { r.method = score_method::kl_div; }), "options.method is \"kl_div\""));
  CHECK(says(refusal([&](run_of& r) {
               r.checkpoint = std::make_shared<search_folder>(
                   folder.path(), std::vector<std::pair<std::string, std::string>>{{"text", "two"}});
             }),
             "host.text is \"two\", and was \"one\""));
  auto const text = read_text(folder / "search.json");
  auto older = text;
  older.replace(older.find("\"version\": 1"), 12, "\"version\": 0");
  write_text(folder / "search.json", older);
  CHECK(says(refusal([](run_of&) {}), "version is 1, and was 0"));
  std::filesystem::remove(folder / "search.json");  // what lies there is then of who knows what
  CHECK(says(refusal([](run_of& r) { r.net.second.weight(1, 2) += 0.5f; }), "safetensors", "another search"));
  write_text(folder / "search.json", text);
  CHECK(listing(folder.path()) == kept);
  run_of again;
  again.in(folder.path());
  again.result();
  CHECK(again.calls == 0);
}

TEST_CASE("search folder: a disk that fills up loses nothing that is there") {
  temporary_folder const folder, roomy;
  run_of first, unlimited;
  unlimited.in(roomy.path());
  unlimited.result();
  std::uintmax_t largest = 0;  // svdquant's: its weights and branches
  for (auto const& file : listing(roomy.path())) largest = std::max(largest, std::filesystem::file_size(roomy / file));
  first.in(folder.path());
  std::string text;
  {
    file_size_limit const full{largest - 1};
    text = error_text(error_id::file_open, [&] { first.result(); });
  }
  CHECK(says(text, "calibration-", "File too large"));
  auto const kept = listing(folder.path());
  CHECK(kept.size() > 1);
  for (auto const& file : kept) CHECK(file.find(".tmp") == file.npos);
  write_text(folder / ".mixbit-1-1.tmp", "what a killed run was writing");
  run_of second;
  second.in(folder.path());
  CHECK(second.result() == uninterrupted(score_method::gradient));
  run_of whole;
  whole.result();
  CHECK(second.calls < whole.calls);
  CHECK(listing(folder.path()).count(".mixbit-1-1.tmp") == 0);
}

TEST_CASE("search folder: files that are broken are refused by name") {
  temporary_folder const folder;
  run_of first;
  first.in(folder.path());
  first.result();
  auto const again = [&](error_id id) {
    run_of r;
    r.in(folder.path());
    return error_text(id, [&] { r.result(); });
  };
  auto const scores = read_text(folder / "scores.safetensors");
  write_text(folder / "scores.safetensors", scores.substr(0, 100));
  CHECK(says(again(error_id::file_format), "scores.safetensors"));
  kept_scores few{3, std::vector<double>(6), {1, 1}};
  search_folder{folder.path()}.save_scores(few);  // of no search
  CHECK(says(again(error_id::file_content), "scores.safetensors", "another search"));
  write_text(folder / "scores.safetensors", scores);
  write_text(folder / "search.json", "{");
  CHECK(says(again(error_id::file_format), "search.json"));
}
