// The libraries beside which bench_kernels --peers times itself: bench/peers/peers.py, a process that answers requests.
#pragma once

#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <set>
#include <string>
#include <vector>

#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

namespace bench {

class peer_process {
 public:
  /// Starts python3 with the script; afterwards it has no peers if that was not possible, and `skipped: WHAT: WHY` says
  /// why on stderr.
  explicit peer_process(char const* script) { start(script); }
  peer_process(peer_process const&) = delete;
  peer_process& operator=(peer_process const&) = delete;
  ~peer_process() {
    if (to_) std::fclose(to_);
    if (from_) std::fclose(from_);
    if (child_ > 0) waitpid(child_, nullptr, 0);
  }

  /// The peers that have `what`: "KERNEL FORMAT DTYPE".
  std::vector<std::string> peers_of(std::string const& what) const {
    std::vector<std::string> found;
    for (std::string const& offer : offers_)
      if (std::size_t const end = offer.find(' '); offer.substr(end + 1) == what) found.push_back(offer.substr(0, end));
    return found;
  }

  /// Seconds of `repeats` calls; 0 if the process has ended.
  double seconds(std::string const& peer, std::string const& what, std::int64_t rows, std::int64_t columns,
                 std::int64_t repeats) {
    std::fprintf(to_, "%s %s %lld %lld %lld\n", peer.c_str(), what.c_str(), static_cast<long long>(rows),
                 static_cast<long long>(columns), static_cast<long long>(repeats));
    std::fflush(to_);
    return std::strtod(line().c_str(), nullptr);
  }

 private:
  void start(char const* script) {
    std::signal(SIGPIPE, SIG_IGN);  // a peer that ends is seen by its missing answer
    int in[2], out[2];
    if (access(script, R_OK) != 0 || pipe(in) != 0) return skip(script);
    if (pipe(out) != 0) return skip("a pipe");
    child_ = fork();
    if (child_ < 0) return skip("a process");
    if (child_ == 0) run(script, in, out);
    close(in[0]);
    close(out[1]);
    to_ = fdopen(in[1], "w");
    from_ = fdopen(out[0], "r");
    read_offers();
  }

  [[noreturn]] static void run(char const* script, int const (&in)[2], int const (&out)[2]) {
    dup2(in[0], 0);
    dup2(out[1], 1);
    close(in[1]);
    close(out[0]);
    char const* const chosen = std::getenv("MIXBIT_PYTHON");
    char const* const python = chosen ? chosen : "python3";  // also its argv[0]: by that it finds its packages
    execlp(python, python, script, "1", static_cast<char*>(nullptr));
    _exit(127);
  }

  void read_offers() {
    for (;;) {
      std::string const text = line();
      if (text == "ready") return;
      if (text.empty()) return skip("python3");
      if (text.starts_with("peer ")) offers_.insert(text.substr(5));
      else std::fprintf(stderr, "%s\n", text.c_str());
    }
  }

  static void skip(char const* what) { std::fprintf(stderr, "skipped: peers: %s cannot be run\n", what); }

  std::string line() {
    char text[1024] = "";
    std::string all = std::fgets(text, sizeof text, from_) ? text : "";
    while (!all.empty() && all.back() == '\n') all.pop_back();
    return all;
  }

  pid_t child_ = -1;
  std::FILE *to_ = nullptr, *from_ = nullptr;
  std::set<std::string> offers_;
};

}  // namespace bench
