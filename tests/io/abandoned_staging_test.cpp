// Outputs whose process is killed, at many points of a commit: what is left is never mixed, and not for ever.
#include <doctest/doctest.h>

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <ctime>
#include <filesystem>
#include <set>
#include <string>

#include "mixbit/io/staged_output.hpp"
#include "support/temporary_folder.hpp"

namespace {

namespace fs = std::filesystem;
using mixbit::staged_output;
using namespace mixbit::test;
using names = std::set<std::string>;

/// The number of a process that has ended.
pid_t ended_process() {
  pid_t const child = ::fork();
  if (child == 0) ::_exit(0);
  ::waitpid(child, nullptr, 0);
  return child;
}

std::string staging_of(pid_t process, std::string const& rest = "-0") {
  return ".mixbit-" + std::to_string(process) + rest;
}

TEST_CASE("abandoned_staging: only folders as staged_output names them are of a process") {
  using mixbit::detail::staging_process;
  CHECK(staging_process(".mixbit-123-0") == 123);
  CHECK(staging_process(".mixbit-2-4294967295") == 2);
  for (char const* const name : {"", ".mixbit-", ".mixbit-12", ".mixbit-12-", ".mixbit--1-0", ".mixbit-0-0",
                                 ".mixbit-1-0", ".mixbit-12-0x", ".mixbit-12-0.tmp", ".mixbit-x-0", ".mixbit- 12-0",
                                 "mixbit-12-0", ".mixbit-99999999999-0", ".mixbit-12-99999999999", ".mixbit-12--1"})
    CHECK_MESSAGE(staging_process(name) == 0, name);
}

TEST_CASE("abandoned_staging: what a killed process left goes with the next output to the folder") {
  temporary_folder const folder;
  pid_t const child = ::fork();
  if (child == 0) {
    staged_output out{folder.path()};
    mixbit::write_file_atomically(out.path("checkpoint/model"), "half of a run");
    ::raise(SIGKILL);
  }
  ::waitpid(child, nullptr, 0);
  CHECK(listing(folder.path()).contains(staging_of(child, "-0/new/checkpoint/model")));
  { staged_output const out{folder.path()}; }
  CHECK(listing(folder.path()).empty());
}

TEST_CASE("abandoned_staging: one without a lock goes where it is empty, and else may be in use elsewhere") {
  temporary_folder const folder;
  pid_t const ended = ended_process();
  for (char const* const rest : {"-0", "-1"}) fs::create_directory(folder / staging_of(ended, rest));
  fs::create_directory(folder / staging_of(ended, "-1/new"));  // on a file system that let it have no lock
  { staged_output const out{folder.path()}; }
  CHECK(listing(folder.path()) == names{staging_of(ended, "-1"), staging_of(ended, "-1/new")});
}

TEST_CASE("abandoned_staging: folders that may be in use stay, and what only looks like them") {
  temporary_folder const folder;
  pid_t const ended = ended_process();
  staged_output const mine{folder.path()};
  fs::create_directory(folder / staging_of(::getpid(), "-4000000000"));  // of one that is there
  auto const locked = folder / staging_of(ended);  // of one that may be there on another machine
  fs::create_directory(locked);
  int const lock = mixbit::detail::lock_staging(locked, O_CREAT);
  REQUIRE(lock >= 0);
  write_text(folder / staging_of(ended, "-1"), "a file");
  fs::create_directory(folder / "elsewhere");
  write_text(folder / "elsewhere/file", "not in the folder");
  fs::create_directory_symlink("elsewhere", folder / staging_of(ended, "-2"));
  fs::create_directory(folder / staging_of(ended, "-3-mine"));
  auto const before = listing(folder.path());
  { staged_output const other{folder.path()}; }
  CHECK(listing(folder.path()) == before);
  ::close(lock);
  { staged_output const other{folder.path()}; }
  CHECK_FALSE(fs::exists(locked));
  CHECK(listing(folder.path()).size() == before.size() - 2);  // it and its lock
  if (::geteuid() != 0) return;
  auto const foreign = folder / staging_of(ended, "-4");
  fs::create_directory(foreign);
  REQUIRE(::chown(foreign.c_str(), 4321, 4321) == 0);
  { staged_output const other{folder.path()}; }
  CHECK(fs::exists(foreign));
}

/// Stages an output of many files, says so through the pipe, and commits it.
void publish(fs::path const& folder, std::string const& generation, int files, int ready) {
  staged_output out{folder};
  out.publish_last("config.json");
  out.remove_stale("index.json");
  for (int i = 0; i < files; ++i)
    mixbit::write_file_atomically(out.path("model-" + std::to_string(i)), generation);
  mixbit::write_file_atomically(out.path("config.json"), generation);
  mixbit::write_file_atomically(out.path("a/last.json"), generation);
  if (ready >= 0) (void)!::write(ready, "r", 1);
  out.commit();
}

TEST_CASE("staged_output: killed between two moves, the file to begin with is not there") {
  temporary_folder const folder;
  constexpr int files = 60;
  int between = 0, published = 0;
  for (int k = 0; k < 16; ++k) {
    auto const place = folder.path() / std::to_string(k);
    publish(place, "old", files, -1);
    write_text(place / "index.json", "old");
    int ready[2];
    REQUIRE(::pipe(ready) == 0);
    pid_t const child = ::fork();
    if (child == 0) {
      publish(place, "new", files, ready[1]);
      ::_exit(0);
    }
    char byte;
    REQUIRE(::read(ready[0], &byte, 1) == 1);
    struct timespec const wait {0, k * 300'000};
    ::nanosleep(&wait, nullptr);
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    for (int const end : ready) ::close(end);
    names generations;
    for (int i = 0; i < files; ++i) generations.insert(read_text(place / ("model-" + std::to_string(i))));
    generations.insert(read_text(place / "a/last.json"));
    bool const begins = fs::exists(place / "config.json");
    CAPTURE(k);
    if (begins) CHECK(generations == names{read_text(place / "config.json")});
    if (begins && read_text(place / "config.json") == "new") CHECK_FALSE(fs::exists(place / "index.json"));
    between += generations.size() == 2;
    published += begins && *generations.begin() == "new";
    publish(place, "newer", 1, -1);
    CHECK(listing(place).size() == files + 3);
    CHECK(read_text(place / "config.json") == "newer");
  }
  CHECK(between + published > 0);  // how many were met between two moves depends on the machine
  MESSAGE(between << " were killed between two moves, " << published << " behind the last");
}

TEST_CASE("staged_output: a commit that fails puts the file to begin with back") {
  temporary_folder const folder;
  publish(folder.path(), "old", 3, -1);
  {
    staged_output out{folder.path()};
    out.publish_last("config.json");
    mixbit::write_file_atomically(out.path("model-1"), "new");
    mixbit::write_file_atomically(out.path("config.json"), "new");
    mixbit::write_file_atomically(out.path("z"), "new");
    fs::create_directory(folder / "z");  // meanwhile
    CHECK_THROWS(out.commit());
  }
  for (char const* name : {"config.json", "model-1"}) CHECK(read_text(folder / name) == "old");
  staged_output out{folder.path()};
  out.publish_last("config.json");
  mixbit::write_file_atomically(out.path("model-1"), "new");  // no file to begin with of its own
  out.commit();
  CHECK(read_text(folder / "config.json") == "old");
}

}  // namespace
