#include <doctest/doctest.h>

#include <filesystem>
#include <set>
#include <string>

#include "mixbit/io/atomic_file.hpp"
#include "mixbit/io/copy_file.hpp"
#include "mixbit/io/staged_output.hpp"
#include "support/error_text.hpp"
#include "support/file_size_limit.hpp"
#include "support/temporary_folder.hpp"

namespace {

using mixbit::error_id;
using mixbit::staged_output;
using mixbit::write_file_atomically;
using namespace mixbit::test;
using names = std::set<std::string>;

void write_three(staged_output& out) {
  write_file_atomically(out.path("plan.json"), "new plan");
  write_file_atomically(out.path("checkpoint/model"), "new model");
  write_file_atomically(out.path("report.md"), "new report");
}

TEST_CASE("staged_output: a folder that does not exist appears with all its files") {
  temporary_folder const folder;
  {
    staged_output out{folder / "a/b/"};
    write_three(out);
    CHECK(out.folder() == folder / "a/b");
    CHECK_FALSE(std::filesystem::exists(folder / "a/b/plan.json"));
    out.commit();
    CHECK(says(error_text(error_id::file_open, [&] { out.commit(); }), "already committed"));
  }
  CHECK(listing(folder.path()) ==
        names{"a", "a/b", "a/b/plan.json", "a/b/report.md", "a/b/checkpoint", "a/b/checkpoint/model"});
  CHECK(read_text(folder / "a/b/checkpoint/model") == "new model");
}

TEST_CASE("staged_output: without commit, folders made for it vanish again") {
  temporary_folder const folder;
  {
    staged_output out{folder / "a/b"};
    write_three(out);
  }
  CHECK(listing(folder.path()).empty());
  std::filesystem::create_directory(folder / "a");
  { staged_output const out{folder / "a/b"}; }
  CHECK(listing(folder.path()) == names{"a"});
}

TEST_CASE("staged_output: a file where a folder has to be is named as one, and stays") {
  temporary_folder const folder;
  write_text(folder / "file", "mine");
  for (char const* const wanted : {"file", "file/x", "file/x/y"})
    CHECK(says(error_text(error_id::file_open, [&] { staged_output{folder / wanted}; }),
               "cannot write into '" + (folder / "file").string() + "': Not a directory"));
  CHECK(read_text(folder / "file") == "mine");
  CHECK(listing(folder.path()) == names{"file"});
}

TEST_CASE("staged_output: existing files stay without commit, and are replaced or kept by it") {
  temporary_folder const folder;
  write_text(folder / "plan.json", "old plan");
  write_text(folder / "notes.txt", "mine");
  std::filesystem::create_directory(folder / "checkpoint");
  write_text(folder / "checkpoint/model", "old model");
  auto const before = listing(folder.path());
  {
    staged_output out{folder.path()};
    write_three(out);
  }
  CHECK(listing(folder.path()) == before);
  CHECK(read_text(folder / "plan.json") == "old plan");
  CHECK(read_text(folder / "checkpoint/model") == "old model");
  {
    staged_output out{folder.path()};
    write_three(out);
    out.commit();
  }
  CHECK(listing(folder.path()) == names{"plan.json", "notes.txt", "report.md", "checkpoint", "checkpoint/model"});
  CHECK(read_text(folder / "plan.json") == "new plan");
  CHECK(read_text(folder / "checkpoint/model") == "new model");
  CHECK(read_text(folder / "notes.txt") == "mine");
}

TEST_CASE("staged_output: a commit that fails half-way takes back what it did") {
  temporary_folder const folder;
  write_text(folder / "plan.json", "old plan");
  names const before{"plan.json", "report.md"};
  {
    staged_output out{folder.path()};
    write_three(out);
    std::filesystem::create_directories(folder / "report.md");  // where a file wants to go; last in the order of moves
    CHECK(says(error_text(error_id::file_open, [&] { out.commit(); }), "report.md", "Is a directory"));
  }
  CHECK(listing(folder.path()) == before);
  CHECK(read_text(folder / "plan.json") == "old plan");
}

TEST_CASE("staged_output: a file where a folder has to be is refused, in the target and on the way to it") {
  temporary_folder const folder;
  write_text(folder / "checkpoint", "a file");
  {
    staged_output out{folder.path()};
    CHECK(says(error_text(error_id::file_open, [&] { (void)out.path("checkpoint/a/b"); }),
               "cannot write into '" + (folder / "checkpoint").string() + "': Not a directory"));
    CHECK(says(error_text(error_id::file_open, [&] { write_three(out); }), "checkpoint"));
    CHECK(out.path("checkpoint/../b").filename() == "b");
  }
  CHECK(listing(folder.path()) == names{"checkpoint"});
  auto const open = [](std::filesystem::path const& path) {
    return error_text(error_id::file_open, [&] { staged_output{path}; });
  };
  CHECK(says(open(folder / "checkpoint"), "checkpoint'", "Not a directory"));
  CHECK(says(open(folder / "checkpoint/x/y"), "checkpoint"));
  CHECK(says(open(""), "cannot write into ''"));
  CHECK(listing(folder.path()) == names{"checkpoint"});
}

TEST_CASE("staged_output: errors name a file as it will be called") {
  temporary_folder const folder;
  staged_output out{folder / "out"};
  auto const staged = out.path("sub/model");
  auto const writing = [&](auto const& write) {
    std::string text;
    {
      file_size_limit const limit{1000};
      text = error_text(error_id::file_open, write);
    }
    return text;
  };
  std::string const named = "cannot write '" + (folder / "out/sub/model").string() + "': File too large";
  CHECK(says(writing([&] { write_file_atomically(staged, std::string(5000, 'x')); }), named));
  write_text(folder / "source", std::string(5000, 'x'));
  CHECK(says(writing([&] { mixbit::copy_file_atomically(folder / "source", staged); }), named));
  CHECK(says(writing([&] { mixbit::copy_file_atomically(folder / "none", staged); }), (folder / "none").string()));
  mixbit::copy_file_atomically(folder / "source", staged);
  CHECK(read_text(staged) == std::string(5000, 'x'));
  using mixbit::in_quotes;
  auto const root = staged.parent_path().parent_path().parent_path();
  CHECK(in_quotes(root / "new/a/new/b") == "'" + (folder / "out/a/new/b").string() + "'");
  for (auto const& other : {root, root / "new", root / "old/0", folder / "new/a", folder / ".mixbit/new/a"})
    CHECK(in_quotes(other) == "'" + other.string() + "'");
}

TEST_CASE("staged_output: paths that leave the folder are refused") {
  temporary_folder const folder;
  staged_output out{folder / "out"};
  for (char const* const bad : {"../x", "/x", "a/../../x", ""})
    CHECK(says(error_text(error_id::file_open, [&] { out.path(bad); }), bad, "not a path inside the output folder"));
  CHECK(out.path("a/../x") == out.path("x"));
}

TEST_CASE("staged_output: stale files go with a commit, and come back where it fails") {
  temporary_folder const folder;
  write_text(folder / "manifest.json", "old manifest");
  write_text(folder / "plan.json", "old plan");
  write_text(folder / "notes", "the user's own");
  auto const stage = [](staged_output& out) {
    for (char const* name : {"manifest.json", "plan.json", "none", "checkpoint"}) out.remove_stale(name);
    write_three(out);
  };
  {
    staged_output out{folder.path()};
    stage(out);
    std::filesystem::create_directories(folder / "report.md");  // where a file wants to go
    CHECK(says(error_text(error_id::file_open, [&] { out.commit(); }), "report.md"));
  }
  CHECK(listing(folder.path()) == names{"manifest.json", "plan.json", "notes", "report.md"});
  CHECK(read_text(folder / "manifest.json") == "old manifest");
  std::filesystem::remove(folder / "report.md");
  {
    staged_output out{folder.path()};
    stage(out);
    CHECK(says(error_text(error_id::file_open, [&] { out.remove_stale("../x"); }), "'../x'"));
  }
  CHECK(read_text(folder / "manifest.json") == "old manifest");
  staged_output out{folder.path()};
  stage(out);
  out.commit();
  CHECK(listing(folder.path()) == names{"plan.json", "report.md", "notes", "checkpoint", "checkpoint/model"});
  CHECK(read_text(folder / "plan.json") == "new plan");
}

}  // namespace
