// What a program is told of a mapped file that is cut short while it is read. Each case runs in a process of its own:
// a page that was missed is held against a process for good.
#include <doctest/doctest.h>

#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <set>
#include <string>
#include <string_view>
#include <thread>

#include "mixbit/io/atomic_file.hpp"
#include "mixbit/io/mapped_file.hpp"
#include "mixbit/io/missing_pages.hpp"
#include "mixbit/io/staged_output.hpp"
#include "support/error_text.hpp"
#include "support/temporary_folder.hpp"

namespace {

using mixbit::error_id;
using namespace mixbit::test;

/// What `body` says, run in another process; "status N" where that ends otherwise.
template <class Body>
std::string in_another_process(std::filesystem::path const& folder, Body const& body) {
  std::fflush(nullptr);
  pid_t const child = ::fork();
  if (child == 0) {
    write_text(folder / "said", body());
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  if (status != 0) return "status " + std::to_string(status);
  std::string const said = read_text(folder / "said");
  std::filesystem::remove(folder / "said");
  return said;
}

std::string asked() { return error_text(error_id::file_open, [] { mixbit::require_no_missing_pages(); }); }

std::string path_at(std::uintptr_t address, std::string_view maps) {
  std::array<char, 4097> path{};
  mixbit::detail::mapped_path_finder finder{address, path};
  for (char const c : maps)
    if (!finder.take(c)) break;
  return path.data();
}

TEST_CASE("missing_pages: a page that was cut off reads as zeros, and the file is named from then on") {
  temporary_folder const folder;
  std::string const text(5 * 4096, 'x');
  write_text(folder / "weights", text);
  CHECK(in_another_process(folder.path(), [&] {
    mixbit::watch_missing_pages();
    mixbit::mapped_file const file{folder / "weights"};
    if (asked() != "(no error)") return std::string{"too early: "} + asked();
    std::filesystem::resize_file(folder / "weights", 4096);
    auto const read = file.text();
    if (read[0] != 'x' || read[2 * 4096] != '\0' || read[5 * 4096 - 1] != '\0') return std::string{"other bytes"};
    return says(asked(), "'" + (folder / "weights").string() + "': a part of it is missing") ? "named" : asked();
  }) == "named");
}

TEST_CASE("missing_pages: nothing is published behind one") {
  temporary_folder const folder;
  std::filesystem::create_directory(folder / "out");
  write_text(folder / "weights", std::string(3 * 4096, 'x'));
  CHECK(in_another_process(folder.path(), [&] {
    mixbit::watch_missing_pages();
    mixbit::mapped_file const file{folder / "weights"};
    mixbit::staged_output out{folder / "out"};
    mixbit::atomic_file one{folder / "out/one"};
    mixbit::write_file_atomically(out.path("two"), "made before");
    std::filesystem::resize_file(folder / "weights", 0);
    one.write(std::string(1, file.text()[4096]));
    auto const first = error_text(error_id::file_open, [&] { one.commit(); });
    auto const second = error_text(error_id::file_open, [&] { out.commit(); });
    return says(first, "weights': a part of it is missing") && first == second ? "refused" : first + second;
  }) == "refused");
  for (char const* name : {"out/one", "out/two"}) CHECK_FALSE(std::filesystem::exists(folder / name));
}

TEST_CASE("missing_pages: two threads that miss the same page name its file all the same") {
  temporary_folder const folder;
  for (int k = 0; k < 40; ++k) {
    write_text(folder / "weights", std::string(2 * 4096, 'x'));
    CHECK(in_another_process(folder.path(), [&] {
      mixbit::watch_missing_pages();
      mixbit::mapped_file const file{folder / "weights"};
      std::filesystem::resize_file(folder / "weights", 0);
      std::atomic<int> ready{0};
      std::atomic<int> zeros{0};
      auto const touch = [&] {
        ++ready;
        while (ready < 2) {}
        zeros += file.text()[0] == '\0';
      };
      std::thread other{touch};
      touch();
      other.join();
      return zeros == 2 && says(asked(), "weights': a part of it is missing") ? "named" : asked();
    }) == "named");
  }
}

TEST_CASE("missing_pages: a page that the system cannot write is the file's that is read, and nobody's signal") {
  temporary_folder const folder;
  std::size_t const size = std::size_t{1} << 19;
  write_text(folder / "weights", std::string(size, 'x'));
  CHECK(in_another_process(folder.path(), [&] {
    mixbit::mapped_file const file{folder / "weights"};
    mixbit::atomic_file one{folder / "one"};
    std::filesystem::resize_file(folder / "weights", 0);
    auto const first = error_text(error_id::file_open, [&] { one.write(file.bytes()); });
    return says(first, "weights': a part of it is missing") && asked() == "(no error)" ? "named" : first;
  }) == "named");
  CHECK(listing(folder.path()) == std::set<std::string>{"weights"});
}

TEST_CASE("missing_pages: a signal that is none of a page ends the process as ever") {
  temporary_folder const folder;
  CHECK(in_another_process(folder.path(), [&] {
    mixbit::watch_missing_pages();
    ::raise(SIGBUS);
    return "went on";
  }) == "status " + std::to_string(SIGBUS));
}

TEST_CASE("missing_pages: the file at an address is found in the list of mappings") {
  std::string const maps =
      "00400000-00452000 r-xp 00000000 08:02 173521      /usr/bin/dbus-daemon\n"
      "00e03000-00e24000 rw-p 00000000 00:00 0           [heap]\n"
      "7f0000001000-7f0000003000 r--p 00000000 08:02 7                  /a b/model.safetensors\n"
      "7f0000003000-7f0000004000 r--p 00000000 00:00 0 \n"
      "7fff0000-7ffff000 r--p 00000000 08:02 8 /last";
  CHECK(path_at(0x400000, maps) == "/usr/bin/dbus-daemon");
  CHECK(path_at(0x451fff, maps) == "/usr/bin/dbus-daemon");
  CHECK(path_at(0x452000, maps).empty());
  CHECK(path_at(0xe03000, maps).empty());  // of no file
  CHECK(path_at(0x7f0000002fff, maps) == "/a b/model.safetensors");
  CHECK(path_at(0x7f0000003000, maps).empty());
  CHECK(path_at(0x7fff0000, maps) == "/last");
  std::string const longest(5000, 'p');
  CHECK(path_at(1, "0-2 r /" + longest + "\n") == "/" + longest.substr(0, 4095));  // the rest has no place
}

}  // namespace
