// quantize_checkpoint beside `cp` of the same files, on a checkpoint made for it: bfloat16 weights in the shapes of a
// Llama, in shards with an index.
//
//   bench_checkpoint [--json] [--quick] [--gib N] [--rounds N] [--folder DIR] [--memory BYTES]
//
// --gib N      size of the checkpoint (default 8); --quick makes 256 MiB and one round
// --rounds N   each round runs cp and every preset in turn (default 3); shown are medians
// --folder DIR where to put it all, in a folder that is removed again (default TMPDIR or /tmp); it has to have room for
//              the checkpoint twice over
// --memory     handed on to quantize_checkpoint (default 256M)
//
// What is dirty is written to the disk before each run, which is not timed; whether the files are still in the page
// cache is the system's affair, and cannot be forced without being root. Memory is the most RssAnon that was seen, at
// 200 looks a second. The program is taken from the folder of this one.
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
    "bench_checkpoint [--json] [--quick] [--gib N] [--rounds N] [--folder DIR] [--memory BYTES]";
constexpr double gib = 1024.0 * 1024.0 * 1024.0;

struct options {
  bool json = false, quick = false;
  double size = 8;
  int rounds = 3;
  std::string folder, memory = "256M";
};

[[noreturn]] void refuse(std::string const& what) {
  std::fprintf(stderr, "bench_checkpoint: %s; %s\n", what.c_str(), usage);
  std::exit(2);
}

double number(std::string const& option, std::string const& text, double most) {
  char* end = nullptr;
  double const n = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0' || !(n > 0) || n > most) refuse(option + " '" + text + "' is no such number");
  return n;
}

options parse(int count, char** arguments) {
  options o;
  std::map<std::string, std::string> given;
  for (int i = 1; i < count; ++i) {
    std::string const option = arguments[i];
    bool const flag = option == "--json" || option == "--quick";
    if (!flag && option != "--gib" && option != "--rounds" && option != "--folder" && option != "--memory")
      refuse("'" + option + "' is an unknown option");
    if (given.contains(option)) refuse("'" + option + "' is given twice");
    if (!flag && i + 1 == count) refuse(option + " needs a value");
    given[option] = flag ? "" : arguments[++i];
  }
  o.json = given.contains("--json");
  o.quick = given.contains("--quick");
  if (o.quick) o.size = 0.25, o.rounds = 1;
  if (given.contains("--gib")) o.size = number("--gib", given["--gib"], 4096);
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

/// An embedding, then decoder layers until `bytes` are reached.
std::vector<named_geometry> shapes_of(double bytes) {
  std::vector<named_geometry> all;
  std::int64_t const h = bytes < 2 * gib ? 1024 : 4096, kv = h / 4, mlp = h * 7 / 2;
  double left = bytes;
  auto const add = [&](std::string name, std::initializer_list<std::int64_t> shape) {
    all.push_back({std::move(name), dense_geometry(dtype::bf16, shape)});
    left -= static_cast<double>(all.back().shape.bytes());
  };
  add("model.embed_tokens.weight", {32000, h});
  add("model.norm.weight", {h});
  double const layer = 2.0 * static_cast<double>(2 * h * h + 2 * kv * h + 3 * mlp * h + 2 * h);
  for (int i = 0; i == 0 || left >= layer / 2; ++i) {
    std::string const at = "model.layers." + std::to_string(i) + ".";
    for (char const* const name : {"q_proj", "o_proj"}) add(at + "self_attn." + name + ".weight", {h, h});
    for (char const* const name : {"k_proj", "v_proj"}) add(at + "self_attn." + name + ".weight", {kv, h});
    for (char const* const name : {"gate_proj", "up_proj"}) add(at + "mlp." + name + ".weight", {mlp, h});
    add(at + "mlp.down_proj.weight", {h, mlp});
    add(at + "input_layernorm.weight", {h});
    add(at + "post_attention_layernorm.weight", {h});
  }
  return all;
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
  safetensors_shards shards{out, ".", shapes_of(bytes), {{"format", "pt"}}, static_cast<std::int64_t>(2 * gib)};
  values make;
  double total = 0;
  for (auto const& t : shards.order()) {
    shards.write(make.tensor(t.shape));
    total += static_cast<double>(t.shape.bytes());
  }
  shards.commit();
  write_json_file(out.path("config.json"), {{"architectures", {"LlamaForCausalLM"}}, {"model_type", "llama"}});
  out.commit();
  return total;
}

struct run_cost {
  double seconds = 0, cpu = 0, anonymous = 0;  ///< anonymous: the most bytes seen
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
  std::vector<std::string> const presets{"", "W4A16_NVFP4_CFG", "INT8_WEIGHT_ONLY_CFG",
                                         "INT4_BLOCKWISE_WEIGHT_ONLY_CFG"};
  std::map<std::string, std::vector<run_cost>> runs;
  std::map<std::string, double> written;
  for (int round = 0; round < o.rounds; ++round)
    for (auto const& preset : presets) {
      ::sync();
      runs[preset].push_back(run(preset.empty() ? std::vector<std::string>{"cp", "-r", "--reflink=never", source, out}
                                                : std::vector<std::string>{program, "--model", source, "--out", out,
                                                                           "--preset", preset, "--memory", o.memory}));
      written[preset] = bytes_in(out);
      fs::remove_all(out);
    }
  double const copied = median_of(runs[""], &run_cost::seconds);
  for (auto const& preset : presets) {
    double const seconds = median_of(runs[preset], &run_cost::seconds), cpu = median_of(runs[preset], &run_cost::cpu);
    double anonymous = 0;
    for (auto const& r : runs[preset]) anonymous = std::max(anonymous, r.anonymous);
    std::printf(o.json ? "{\"benchmark\":\"checkpoint\",\"what\":\"%s\",\"gib\":%.3f,\"written_gib\":%.3f,"
                         "\"seconds\":%.3f,\"cpu_seconds\":%.3f,\"gib_s\":%.3f,\"ratio_to_cp\":%.3f,"
                         "\"anonymous_mib\":%.1f}\n"
                       : "%-31s %6.2f GiB -> %5.2f  %7.2f s (CPU %7.2f)  %5.2f GiB/s  %5.2f of cp's speed  "
                         "%5.1f MiB anonymous\n",
                preset.empty() ? "cp" : preset.c_str(), bytes / gib, written[preset] / gib, seconds, cpu,
                bytes / gib / seconds, copied / seconds, anonymous / 1048576.0);
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
