// quantize_checkpoint that is killed, at many points, and run again; and what it leaves when a file cannot be written.
#include <doctest/doctest.h>

#include <array>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "examples/tools/quantize_checkpoint/job.hpp"
#include "mixbit/io/atomic_file.hpp"
#include "mixbit/io/mapped_file.hpp"
#include "mixbit/io/safetensors_writer.hpp"
#include "support/temporary_folder.hpp"

namespace {

namespace fs = std::filesystem;

/// Of a Llama, whose names in GGUF are known.
void write_config(fs::path const& folder, int rope_theta) {
  mixbit::write_file_atomically(folder / "config.json",
                                R"({"architectures": ["LlamaForCausalLM"], "hidden_size": 768, "vocab_size": 8,
"num_attention_heads": 8, "num_hidden_layers": 24, "intermediate_size": 512, "max_position_embeddings": 64,
"rope_theta": )" + std::to_string(rope_theta) + "}");
}

/// A model of a few large matrices and small tensors.
void write_model(fs::path const& folder, int matrices) {
  fs::create_directories(folder);
  std::vector<float> w(512 * 768), norm(768, 1.0f);
  std::vector<mixbit::named_tensor> tensors;
  std::vector<std::vector<float>> all;
  for (int m = 0; m < matrices; ++m) {
    for (std::size_t i = 0; i < w.size(); ++i) w[i] = std::sin(static_cast<float>((i * 7 + 13) % 4099 + m));
    all.push_back(w);
  }
  for (int m = 0; m < matrices; ++m) {
    std::string const layer = "model.layers." + std::to_string(m);
    tensors.push_back({layer + ".mlp.up_proj.weight",
                       mixbit::dense_view(static_cast<float const*>(all[static_cast<std::size_t>(m)].data()),
                                          {512, 768})});
    tensors.push_back({layer + ".input_layernorm.weight",
                       mixbit::dense_view(static_cast<float const*>(norm.data()), {768})});
  }
  mixbit::write_safetensors(folder / "model.safetensors", tensors);
  write_config(folder, 10000);
}

quantize_checkpoint::options options_of(fs::path const& model, fs::path const& out) {
  quantize_checkpoint::options o;
  o.model = model.string();
  o.out = out.string();
  o.preset = "W4A16_NVFP4_CFG";
  o.threads = 2;
  return o;
}

/// Runs it in a process of its own, killed after so long; its exit status, or -1 where it was killed. `says`: a file
/// for what it prints.
int run_killed(quantize_checkpoint::options const& o, std::chrono::microseconds after, rlim_t largest_file = 0,
               fs::path const& says = "/dev/null") {
  std::fflush(nullptr);
  pid_t const child = ::fork();
  if (child == 0) {
    int const output = ::open(says.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0666);
    ::dup2(output, 1), ::dup2(output, 2);
    if (largest_file != 0) {
      std::signal(SIGXFSZ, SIG_IGN);
      struct rlimit const limit{largest_file, largest_file};
      ::setrlimit(RLIMIT_FSIZE, &limit);
    }
    try {
      quantize_checkpoint::run(o);
    } catch (std::exception const&) {
      ::_exit(2);
    }
    std::fflush(nullptr);
    ::_exit(0);
  }
  if (after.count() > 0) {
    std::this_thread::sleep_for(after);
    ::kill(child, SIGKILL);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

std::set<std::string> names_in(fs::path const& folder) {
  std::set<std::string> names;
  if (fs::exists(folder))
    for (auto const& entry : fs::directory_iterator{folder}) names.insert(entry.path().filename().string());
  return names;
}

std::string bytes_of(fs::path const& file) { return std::string{mixbit::mapped_file{file}.text()}; }

std::set<std::string> const complete{"config.json", "hf_quant_config.json", "model.safetensors"};

TEST_CASE("quantize_checkpoint: killed at any point and run again, its files are the same") {
  mixbit::test::temporary_folder const work;
  write_model(work.path() / "model", 12);
  auto const reference = options_of(work.path() / "model", work.path() / "reference");
  auto const start = std::chrono::steady_clock::now();
  REQUIRE(run_killed(reference, {}) == 0);
  auto const whole = std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - start);
  int killed = 0;
  for (int k = 1; k <= 12; ++k) {
    CAPTURE(k);
    auto const o = options_of(work.path() / "model", work.path() / ("out" + std::to_string(k)));
    for (int again = 0; again < 3; ++again) {
      if (run_killed(o, whole * k / 13) != -1) break;
      ++killed;
      auto names = names_in(o.out);
      names.erase(".quantize_checkpoint");
      for (auto const& name : names) CHECK((complete.contains(name) || name.starts_with(".mixbit-")));
      if (names.contains("model.safetensors"))  // never half of one
        CHECK(bytes_of(fs::path{o.out} / "model.safetensors") ==
              bytes_of(fs::path{reference.out} / "model.safetensors"));
    }
    REQUIRE(run_killed(o, {}) == 0);
    for (auto const& name : complete)
      CHECK(bytes_of(fs::path{o.out} / name) == bytes_of(fs::path{reference.out} / name));
    CHECK_FALSE(fs::exists(fs::path{o.out} / ".quantize_checkpoint"));
  }
  CHECK(killed > 6);
}

/// Kills a run once it has finished at least so many tensors.
void stop_after(quantize_checkpoint::options const& o, int tensors) {
  for (int wait = 2000;; wait += 2000) {
    REQUIRE(wait < 2'000'000);
    REQUIRE(run_killed(o, std::chrono::microseconds{wait}) == -1);
    std::ifstream file{fs::path{o.out} / ".quantize_checkpoint" / "done"};
    if (int done = 0; file >> done && done >= tensors) return;
  }
}

TEST_CASE("quantize_checkpoint: what is done is not done again; other work begins anew") {
  mixbit::test::temporary_folder const work;
  write_model(work.path() / "model", 24);
  auto o = options_of(work.path() / "model", work.path() / "out");
  stop_after(o, 2);
  auto const half = fs::path{o.out} / ".quantize_checkpoint" / "model.safetensors";
  std::uint64_t head = 0;
  {
    std::fstream file{half, std::ios::in | std::ios::out | std::ios::binary};
    REQUIRE(file.read(reinterpret_cast<char*>(&head), sizeof head));
    file.seekp(static_cast<std::streamoff>(head + sizeof head));  // what was written is now zeros, and stays so if it
    std::string const zeros(fs::file_size(half) - head - sizeof head, '\0');  // is taken for done
    REQUIRE(file.write(zeros.data(), static_cast<std::streamsize>(zeros.size())));
  }
  REQUIRE(run_killed(o, {}) == 0);
  auto const resumed = bytes_of(fs::path{o.out} / "model.safetensors");
  auto fresh = o;
  fresh.out = (work.path() / "fresh").string();
  REQUIRE(run_killed(fresh, {}) == 0);
  auto const expected = bytes_of(fs::path{fresh.out} / "model.safetensors");
  CHECK(resumed.size() == expected.size());
  CHECK(resumed.substr(0, head) == expected.substr(0, head));
  CHECK(resumed != expected);

  auto other = o;
  other.out = (work.path() / "other").string();
  stop_after(other, 2);
  other.preset = "INT8_WEIGHT_ONLY_CFG";
  REQUIRE(run_killed(other, {}) == 0);
  auto int8 = other;
  int8.out = (work.path() / "int8").string();
  REQUIRE(run_killed(int8, {}) == 0);
  CHECK(bytes_of(fs::path{other.out} / "model.safetensors") == bytes_of(fs::path{int8.out} / "model.safetensors"));
}

TEST_CASE("quantize_checkpoint: compressed-tensors' files go on where they were; those of another form begin anew") {
  mixbit::test::temporary_folder const work;
  write_model(work.path() / "model", 24);
  auto const log = work.path() / "log";
  auto fresh = options_of(work.path() / "model", work.path() / "fresh");
  fresh.to = "compressed-tensors";
  REQUIRE(run_killed(fresh, {}, 0, log) == 0);
  CHECK(bytes_of(log).find("begins anew") == std::string::npos);
  auto const check_same = [&](fs::path const& out) {
    CHECK(names_in(out) == std::set<std::string>{"config.json", "model.safetensors"});
    for (auto const& name : names_in(out)) CHECK(bytes_of(out / name) == bytes_of(fs::path{fresh.out} / name));
  };
  auto o = fresh;
  o.out = (work.path() / "out").string();
  o.memory = std::int64_t{50} << 20;  // some rows at a time
  stop_after(o, 2);
  REQUIRE(run_killed(o, {}, 0, log) == 0);
  CHECK(bytes_of(log).find("goes on at tensor ") != std::string::npos);
  check_same(o.out);

  auto other = fresh;
  other.out = (work.path() / "other").string();
  other.to = "modelopt";
  stop_after(other, 2);
  other.to = "compressed-tensors";
  REQUIRE(run_killed(other, {}, 0, log) == 0);
  CHECK(bytes_of(log).find("begins anew: an earlier run left other work in " + other.out) != std::string::npos);
  CHECK(bytes_of(log).find("goes on at tensor ") == std::string::npos);
  check_same(other.out);
}

/// A config of these for weights and, where there is any, inputs.
std::string config_in(fs::path const& file, std::string const& weight, std::string const& input = {}) {
  auto const entry = [](char const* of, std::string const& cfg) {
    return std::string{R"(, {"quantizer_name": "*)"} + of + R"(_quantizer", "cfg": )" + cfg + "}";
  };
  mixbit::write_file_atomically(
      file, R"({"quant_cfg": [{"quantizer_name": "*", "enable": false})" + entry("weight", weight) +
                (input.empty() ? input : entry("input", input)) + R"(], "algorithm": "max"})");
  return file.string();
}

TEST_CASE("quantize_checkpoint: the same weights beside other inputs are another file, which begins anew") {
  mixbit::test::temporary_folder const work;
  write_model(work.path() / "model", 24);
  auto const log = work.path() / "log";
  std::string const per_token = R"("type": "dynamic", "block_sizes": {"-1": null}})";
  struct {
    char const* weight;
    std::string input;
  } const changes[] = {{R"({"num_bits": 8, "axis": 0})", R"({"num_bits": 8, )" + per_token},         // another head
                       {R"({"num_bits": [4, 3]})", R"({"num_bits": [4, 3], )" + per_token}};  // the same head
  for (auto const& c : changes) {
    CAPTURE(c.weight);
    auto o = options_of(work.path() / "model", work.path() / "out");
    o.to = "compressed-tensors";
    o.preset.clear();
    o.config = config_in(work.path() / "weights.json", c.weight);
    stop_after(o, 2);
    o.config = config_in(work.path() / "both.json", c.weight, c.input);
    REQUIRE(run_killed(o, {}, 0, log) == 0);
    CHECK(bytes_of(log).find("begins anew") != std::string::npos);
    auto fresh = o;
    fresh.out = (work.path() / "fresh").string();
    REQUIRE(run_killed(fresh, {}) == 0);
    for (char const* name : {"config.json", "model.safetensors"})
      CHECK(bytes_of(fs::path{o.out} / name) == bytes_of(fs::path{fresh.out} / name));
    for (auto const& out : {o.out, fresh.out}) fs::remove_all(out);
  }
}

TEST_CASE("quantize_checkpoint: a GGUF file goes on where it was; that of another config.json begins anew") {
  mixbit::test::temporary_folder const work;
  write_model(work.path() / "model", 24);
  auto const log = work.path() / "log";
  auto const into = [&](char const* out) {
    auto o = options_of(work.path() / "model", work.path() / out);
    o.to = "gguf";
    o.memory = std::int64_t{50} << 20;  // some rows at a time
    return o;
  };
  auto const check_same = [&](auto const& left, auto const& right) {
    CHECK(names_in(left.out) == std::set<std::string>{"model.gguf"});
    CHECK(bytes_of(fs::path{left.out} / "model.gguf") == bytes_of(fs::path{right.out} / "model.gguf"));
  };
  auto const fresh = into("fresh"), o = into("out");
  REQUIRE(run_killed(fresh, {}) == 0);
  stop_after(o, 2);
  REQUIRE(run_killed(o, {}, 0, log) == 0);
  CHECK(bytes_of(log).find("goes on at tensor ") != std::string::npos);
  check_same(o, fresh);

  auto const other = into("other"), changed = into("changed");
  stop_after(other, 2);
  write_config(work.path() / "model", 500000);
  REQUIRE(run_killed(other, {}, 0, log) == 0);
  CHECK(bytes_of(log).find("begins anew") != std::string::npos);
  REQUIRE(run_killed(changed, {}) == 0);
  check_same(other, changed);
  CHECK(bytes_of(fs::path{other.out} / "model.gguf") != bytes_of(fs::path{o.out} / "model.gguf"));
}

TEST_CASE("quantize_checkpoint: a full disk leaves the output as it was") {
  mixbit::test::temporary_folder const work;
  write_model(work.path() / "model", 3);
  auto const o = options_of(work.path() / "model", work.path() / "out");
  CHECK(run_killed(o, {}, 100'000) == 2);
  CHECK(names_in(work.path()) == std::set<std::string>{"model"});
  REQUIRE(run_killed(o, {}) == 0);
  auto const before = bytes_of(fs::path{o.out} / "model.safetensors");
  auto other = o;
  other.preset = "INT8_WEIGHT_ONLY_CFG";
  CHECK(run_killed(other, {}, 100'000) == 2);
  CHECK(names_in(o.out) == complete);
  CHECK(bytes_of(fs::path{o.out} / "model.safetensors") == before);
}

}  // namespace
