#include <doctest/doctest.h>

#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <filesystem>
#include <set>
#include <string>

#include "mixbit/io/atomic_file.hpp"
#include "support/error_text.hpp"
#include "support/file_size_limit.hpp"
#include "support/temporary_folder.hpp"

namespace {

using mixbit::atomic_file;
using mixbit::durability;
using mixbit::error_id;
using namespace mixbit::test;
using names = std::set<std::string>;

TEST_CASE("atomic_file: nothing is visible before commit, everything after it") {
  temporary_folder const folder;
  auto const target = folder / "out.txt";
  {
    atomic_file file{target};
    file.write("hello ");
    CHECK_FALSE(std::filesystem::exists(target));
    file.write(std::string(600000, 'x'));  // larger than the buffer
    file.write("");
    file.write(" end");
    file.commit();
    CHECK(read_text(target) == "hello " + std::string(600000, 'x') + " end");
  }
  CHECK(listing(folder.path()) == names{"out.txt"});
}

TEST_CASE("atomic_file: pieces of every size around the buffer's arrive in order") {
  temporary_folder const folder;
  std::string expected;
  atomic_file file{folder / "out"};
  for (std::size_t const size : {1u, 262143u, 1u, 262144u, 0u, 262145u, 7u, 131072u, 131072u, 3u}) {
    std::string const piece(size, static_cast<char>('a' + expected.size() % 26));
    file.write(piece);
    expected += piece;
  }
  file.commit(durability::synced);
  CHECK(read_text(folder / "out") == expected);
}

TEST_CASE("atomic_file: what is finished is on the disk and not yet the target's; what does not fit is no one's") {
  temporary_folder const folder;
  write_text(folder / "a", "old");
  {
    atomic_file a{folder / "a"}, b{folder / "b"};
    a.write("new");
    b.write(std::string(5000, 'b'));
    a.finish(durability::synced);
    CHECK(read_text(folder / "a") == "old");
    CHECK(says(error_text(error_id::file_open, [&] { a.write("more"); }), "already finished"));
    bool failed = false;
    {
      file_size_limit const disk{1000};
      try {
        b.finish();
      } catch (mixbit::error const&) {
        failed = true;
      }
    }
    CHECK(failed);
    CHECK_THROWS_AS(b.commit(), mixbit::error);
  }
  CHECK(listing(folder.path()) == names{"a"});
  CHECK(read_text(folder / "a") == "old");
  atomic_file a{folder / "a"};
  a.write("new");
  a.finish();
  a.commit();
  CHECK(read_text(folder / "a") == "new");
  CHECK(says(error_text(error_id::file_open, [&] { a.commit(); }), "already finished"));
}

TEST_CASE("atomic_file: without commit the old content stays and no temporary file is left") {
  temporary_folder const folder;
  write_text(folder / "out", "old");
  {
    atomic_file file{folder / "out"};
    file.write(std::string(300000, 'n'));
    CHECK(listing(folder.path()).size() == 2);
    CHECK(read_text(folder / "out") == "old");
  }
  CHECK(listing(folder.path()) == names{"out"});
  CHECK(read_text(folder / "out") == "old");
}

TEST_CASE("atomic_file: a file system that takes no more is an error that names the target, and loses nothing") {
  temporary_folder const folder;
  auto const target = folder / "weights.bin";
  write_text(target, "old");
  for (bool const large : {false, true}) {  // fails in write(), or in the flush of commit()
    std::string text, again;
    {
      file_size_limit const limit{100000};
      atomic_file file{target};
      text = error_text(error_id::file_open, [&] {
        file.write(std::string(large ? 1000000 : 150000, 'n'));
        file.commit();
      });
      again = error_text(error_id::file_open, [&] { file.commit(); });
    }
    CHECK(says(text, "cannot write", "weights.bin", "File too large"));
    CHECK(says(again, "weights.bin", "already finished or failed"));
    CHECK(listing(folder.path()) == names{"weights.bin"});
    CHECK(read_text(target) == "old");
  }
}

TEST_CASE("atomic_file: a second commit and a write after it are refused") {
  temporary_folder const folder;
  atomic_file file{folder / "out"};
  file.write("x");
  file.commit();
  CHECK(says(error_text(error_id::file_open, [&] { file.commit(); }), "already finished"));
  CHECK(says(error_text(error_id::file_open, [&] { file.write("y"); }), "already finished"));
  CHECK(read_text(folder / "out") == "x");
}

TEST_CASE("atomic_file: targets that cannot be replaced are refused by name") {
  temporary_folder const folder;
  auto const open = [](std::filesystem::path const& path) {
    return error_text(error_id::file_open, [&] { atomic_file{path}; });
  };
  CHECK(says(open(folder / "missing/out"), "missing/out", "No such file or directory"));
  CHECK(says(open(folder.path()), folder.path().string(), "Is a directory"));
  CHECK(says(open("/dev/null"), "/dev/null", "not a regular file"));
  CHECK(says(open(""), "''", "not a regular file"));
  CHECK(listing(folder.path()).empty());
}

TEST_CASE("atomic_file: a left-over of a killed process is stepped over; the umask decides the mode") {
  temporary_folder const folder;
  auto const next = mixbit::detail::next_temporary_name();
  auto const number = std::stoul(next.substr(next.rfind('-') + 1)) + 1;
  auto const stale = next.substr(0, next.rfind('-') + 1) + std::to_string(number) + ".tmp";
  write_text(folder / stale, "stale");
  auto const mask = ::umask(027);
  mixbit::write_file_atomically(folder / "out", "new");
  ::umask(mask);
  CHECK(listing(folder.path()) == names{"out", stale});
  CHECK(read_text(folder / stale) == "stale");
  CHECK((std::filesystem::status(folder / "out").permissions() == std::filesystem::perms{0640}));
}

TEST_CASE("atomic_file: a symbolic link is replaced, what it leads to is not touched") {
  temporary_folder const folder;
  write_text(folder / "blob", "old");
  std::filesystem::create_symlink("blob", folder / "link");
  mixbit::write_file_atomically(folder / "link", "new");
  CHECK(read_text(folder / "blob") == "old");
  CHECK(read_text(folder / "link") == "new");
}

}  // namespace
