// quantize_checkpoint beside `cp` of the same files, on a checkpoint made for it: bfloat16 weights in the shapes of a
// Llama, in shards with an index.
//
//   bench_checkpoint [--json] [--quick] [--size BYTES] [--rounds N] [--folder DIR] [--memory BYTES]
//
// --size       of the checkpoint, with K, M or G behind it (default 8G); --quick makes 256 MiB and one round
// --rounds N   each round runs cp and every row in turn (default 3); shown are medians
// --folder DIR where to put it all, in a folder that is removed again (default TMPDIR or /tmp); it has to have room for
//              the checkpoint twice over
// --memory     handed on to quantize_checkpoint (default 256M)
//
// cp of the same bytes in the same round is what the speeds are beside: it reads as much and writes more. Two times
// are shown: until the program ends, which may be the page cache's alone, and until fsync says of every file that it is
// on the disk. What is dirty is written to the disk before each run, which is not timed; whether the files are still in
// the page cache is the system's affair, and cannot be forced without being root. Memory is the most RssAnon that was
// seen, at 200 looks a second. The program is taken from the folder of this one.
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "timing.hpp"
#include "mixbit/core/fp.hpp"
#include "mixbit/io/safetensors_shards.hpp"

namespace {

namespace fs = std::filesystem;
using namespace mixbit;

constexpr char const* usage =
    "bench_checkpoint [--json] [--quick] [--size BYTES] [--rounds N] [--folder DIR] [--memory BYTES]";
constexpr double gib = 1024.0 * 1024.0 * 1024.0;

struct options {
  bool json = false, quick = false;
  double size = 8;  ///< GiB
  int rounds = 3;
  std::string folder, memory = "256M";
};

[[noreturn]] void refuse(std::string const& what) {
  std::fprintf(stderr, "bench_checkpoint: %s; %s\n", what.c_str(), usage);
  std::exit(2);
}

/// Above 0; `units`: letters of which one may stand behind it, for 2^10, 2^20 and so on.
double number(std::string const& option, std::string const& text, double most, std::string_view units = "") {
  char* end = nullptr;
  double n = std::strtod(text.c_str(), &end);
  auto const unit = *end == '\0' || end[1] != '\0' ? units.npos : units.find(*end);
  bool const bare = *end == '\0';
  if (unit != units.npos) n = std::ldexp(n, 10 * (static_cast<int>(unit) + 1));
  if (end == text.c_str() || !(bare || unit != units.npos) || !(n > 0) || n > most)
    refuse(option + " '" + text + "' is no such number");
  return n;
}

options parse(int count, char** arguments) {
  options o;
  std::map<std::string, std::string> given;
  for (int i = 1; i < count; ++i) {
    std::string const option = arguments[i];
    bool const flag = option == "--json" || option == "--quick";
    if (!flag && option != "--size" && option != "--rounds" && option != "--folder" && option != "--memory")
      refuse("'" + option + "' is an unknown option");
    if (given.contains(option)) refuse("'" + option + "' is given twice");
    if (!flag && i + 1 == count) refuse(option + " needs a value");
    given[option] = flag ? "" : arguments[++i];
  }
  o.json = given.contains("--json");
  o.quick = given.contains("--quick");
  if (o.quick) o.size = 0.25, o.rounds = 1;
  if (given.contains("--size")) o.size = number("--size", given["--size"], 4096 * gib, "KMG") / gib;
  if (given.contains("--rounds")) o.rounds = static_cast<int>(std::ceil(number("--rounds", given["--rounds"], 1000)));
  if (given.contains("--memory")) o.memory = given["--memory"];
  o.folder = given.contains("--folder") ? given["--folder"] : fs::temp_directory_path().string();
  return o;
}

/// Twice the checkpoint, and a little: the copy is removed before anything else is written.
void require_room(options const& o) {
  struct statvfs disk {};
  if (::statvfs(o.folder.c_str(), &disk) != 0) refuse("--folder '" + o.folder + "' cannot be looked at");
  double const room = static_cast<double>(disk.f_bavail) * static_cast<double>(disk.f_frsize) / gib;
  double const needed = 2.05 * o.size;
  if (room >= needed) return;
  char text[160];
  std::snprintf(text, sizeof text, "' has %.1f GiB free, and %.1f are needed for a checkpoint of %g GiB", room, needed,
                o.size);
  refuse("--folder '" + o.folder + text);
}

/// A Llama's.
struct shape_of_model {
  std::int64_t h = 0, kv = 0, mlp = 0, layers = 0;
  std::vector<named_geometry> tensors = {};
};

/// An embedding, then decoder layers until `bytes` are reached.
shape_of_model model_of(double bytes) {
  shape_of_model made;
  auto& all = made.tensors;
  std::int64_t const h = made.h = bytes < 2 * gib ? 1024 : 4096;
  std::int64_t const kv = made.kv = h / 4, mlp = made.mlp = h * 7 / 2;
  double left = bytes;
  auto const add = [&](std::string name, std::initializer_list<std::int64_t> shape) {
    all.push_back({std::move(name), dense_geometry(dtype::bf16, shape)});
    left -= static_cast<double>(all.back().shape.bytes());
  };
  add("model.embed_tokens.weight", {32000, h});
  add("model.norm.weight", {h});
  double const layer = 2.0 * static_cast<double>(2 * h * h + 2 * kv * h + 3 * mlp * h + 2 * h);
  for (; made.layers == 0 || left >= layer / 2; ++made.layers) {
    std::string const at = "model.layers." + std::to_string(made.layers) + ".";
    for (char const* const name : {"q_proj", "o_proj"}) add(at + "self_attn." + name + ".weight", {h, h});
    for (char const* const name : {"k_proj", "v_proj"}) add(at + "self_attn." + name + ".weight", {kv, h});
    for (char const* const name : {"gate_proj", "up_proj"}) add(at + "mlp." + name + ".weight", {mlp, h});
    add(at + "mlp.down_proj.weight", {h, mlp});
    add(at + "input_layernorm.weight", {h});
    add(at + "post_attention_layernorm.weight", {h});
  }
  return made;
}

/// Bell-shaped values, the same in every run: 2^22 are made, and each tensor begins elsewhere among them.
class values {
 public:
  values() : table_(std::size_t{1} << 22) {
    std::mt19937 random{7};
    std::normal_distribution<float> bell{0.0f, 0.02f};
    for (auto& v : table_) v = from_float<bfloat16>(bell(random));
  }
  const_tensor_ref tensor(geometry const& shape) {
    auto const count = static_cast<std::size_t>(shape.size());
    held_.resize(count);
    for (std::size_t done = 0; done < count;) {
      std::size_t const begin = start_ % table_.size(), n = std::min(count - done, table_.size() - begin);
      std::copy_n(table_.begin() + static_cast<std::ptrdiff_t>(begin), n,
                  held_.begin() + static_cast<std::ptrdiff_t>(done));
      done += n;
      start_ = start_ * 69069 + 12345;
    }
    return {shape, held_.data()};
  }

 private:
  std::vector<bfloat16> table_, held_;
  std::size_t start_ = 1;
};

/// Makes the checkpoint; returns how many bytes its tensors have.
double generate(fs::path const& folder, double bytes) {
  staged_output out{folder};
  auto const model = model_of(bytes);
  safetensors_shards shards{out, ".", model.tensors, {{"format", "pt"}}, static_cast<std::int64_t>(2 * gib)};
  values make;
  double total = 0;
  for (auto const& t : shards.order()) {
    shards.write(make.tensor(t.shape));
    total += static_cast<double>(t.shape.bytes());
  }
  shards.commit();
  write_json_file(out.path("config.json"),
                  {{"architectures", {"LlamaForCausalLM"}}, {"model_type", "llama"}, {"hidden_size", model.h},
                   {"intermediate_size", model.mlp}, {"num_attention_heads", model.h / 128},
                   {"num_key_value_heads", model.kv / 128}, {"num_hidden_layers", model.layers},
                   {"max_position_embeddings", 4096}, {"vocab_size", 32000}});
  out.commit();
  return total;
}

struct run_cost {
  double seconds = 0, cpu = 0, anonymous = 0;  ///< anonymous: the most bytes seen
  double synced = 0;                           ///< seconds until the files are on the disk
};

/// RssAnon of a process, in bytes; 0 where it is not known.
double anonymous_bytes(pid_t process) {
  std::ifstream status{"/proc/" + std::to_string(process) + "/status"};
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("RssAnon:")) return 1024.0 * std::strtod(line.c_str() + 8, nullptr);
  return 0;
}

run_cost run(std::vector<std::string> const& command) {
  std::vector<char*> arguments;
  for (auto const& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  auto const start = std::chrono::steady_clock::now();
  pid_t const child = ::fork();
  if (child == 0) {
    int const nothing = ::open("/dev/null", O_WRONLY);
    ::dup2(nothing, STDOUT_FILENO);
    ::dup2(nothing, STDERR_FILENO);
    ::execvp(arguments[0], arguments.data());
    ::_exit(127);
  }
  run_cost cost;
  int status = 0;
  struct rusage used {};
  while (child > 0 && ::wait4(child, &status, WNOHANG, &used) == 0) {
    cost.anonymous = std::max(cost.anonymous, anonymous_bytes(child));
    std::this_thread::sleep_for(std::chrono::milliseconds{5});
  }
  cost.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (child < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
    throw std::runtime_error{command[0] + " did not succeed"};
  auto const seconds = [](timeval const& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  cost.cpu = seconds(used.ru_utime) + seconds(used.ru_stime);
  return cost;
}

/// Waits until all files below are on the disk.
void sync_files(fs::path const& folder) {
  for (auto const& entry : fs::recursive_directory_iterator{folder}) {
    if (!entry.is_regular_file()) continue;
    int const file = ::open(entry.path().c_str(), O_RDONLY | O_CLOEXEC);
    bool const done = file >= 0 && ::fsync(file) == 0;
    if (file >= 0) ::close(file);
    if (!done) throw std::runtime_error{"cannot sync " + entry.path().string()};
  }
}

double bytes_in(fs::path const& folder) {
  double bytes = 0;
  for (auto const& entry : fs::recursive_directory_iterator{folder})
    if (entry.is_regular_file()) bytes += static_cast<double>(entry.file_size());
  return bytes;
}

double median_of(std::vector<run_cost> const& runs, double run_cost::*what) {
  std::vector<double> all;
  for (auto const& r : runs) all.push_back(r.*what);
  return bench::median(all);
}

void measure(options const& o, std::string const& program) {
  struct inside {  // removed however this ends
    fs::path path;
    ~inside() { std::error_code ignored; fs::remove_all(path, ignored); }
  } const all{fs::path{o.folder} / ("mixbit-bench-checkpoint-" + std::to_string(::getpid()))};
  fs::create_directories(all.path);
  auto const source = all.path / "source", out = all.path / "out";
  double const bytes = generate(source, o.size * gib);
  struct row {
    char const *preset, *to;  ///< null: cp
  };
  constexpr row rows[] = {{nullptr, nullptr},
                          {"W4A16_NVFP4_CFG", "modelopt"},
                          {"INT8_WEIGHT_ONLY_CFG", "modelopt"},
                          {"INT4_BLOCKWISE_WEIGHT_ONLY_CFG", "modelopt"},
                          {"INT4_BLOCKWISE_WEIGHT_ONLY_CFG", "compressed-tensors"},
                          {"Q4_0", "gguf"}};
  std::vector<std::vector<run_cost>> runs(std::size(rows));
  std::vector<double> written(std::size(rows));
  for (int round = 0; round < o.rounds; ++round)
    for (std::size_t i = 0; i < std::size(rows); ++i) {
      std::vector<std::string> command{"cp", "-r", "--reflink=never", source, out};
      if (rows[i].preset != nullptr)
        command = {program, "--model", source, "--out", out, "--preset", rows[i].preset, "--to", rows[i].to,
                   "--memory", o.memory};
      ::sync();
      auto const start = std::chrono::steady_clock::now();
      auto cost = run(command);
      sync_files(out);
      cost.synced = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      runs[i].push_back(cost);
      written[i] = bytes_in(out);
      fs::remove_all(out);
    }
  double const copied = median_of(runs[0], &run_cost::seconds), copied_synced = median_of(runs[0], &run_cost::synced);
  for (std::size_t i = 0; i < std::size(rows); ++i) {
    std::string const what = rows[i].preset == nullptr ? "cp" : std::string{rows[i].preset} + " as " + rows[i].to;
    double const seconds = median_of(runs[i], &run_cost::seconds), synced = median_of(runs[i], &run_cost::synced);
    double anonymous = 0;
    for (auto const& r : runs[i]) anonymous = std::max(anonymous, r.anonymous);
    std::printf(o.json ? "{\"benchmark\":\"checkpoint\",\"what\":\"%s\",\"gib\":%.3f,\"written_gib\":%.3f,"
                         "\"seconds\":%.3f,\"synced_seconds\":%.3f,\"cpu_seconds\":%.3f,\"ratio_to_cp\":%.3f,"
                         "\"synced_ratio_to_cp\":%.3f,\"anonymous_mib\":%.1f}\n"
                       : "%-52s %6.2f GiB -> %5.2f  %7.2f s, synced %7.2f s (CPU %7.2f)  %5.2f of cp's speed, synced "
                         "%5.2f  %5.1f MiB anonymous\n",
                what.c_str(), bytes / gib, written[i] / gib, seconds, synced, median_of(runs[i], &run_cost::cpu),
                copied / seconds, copied_synced / synced, anonymous / 1048576.0);
  }
}

}  // namespace

int main(int count, char** arguments) {
  options const o = parse(count, arguments);
  require_room(o);
  try {
    auto const program = fs::read_symlink("/proc/self/exe").parent_path() / "quantize_checkpoint";
    if (!fs::exists(program)) refuse("there is no " + program.string() + "; build it as well");
    measure(o, program.string());
  } catch (std::exception const& e) {
    return std::fprintf(stderr, "bench_checkpoint: %s\n", e.what()), 2;
  }
}
