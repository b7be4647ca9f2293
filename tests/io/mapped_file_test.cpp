#include <doctest/doctest.h>

#include <chrono>
#include <filesystem>
#include <type_traits>
#include <utility>

#include "mixbit/io/mapped_file.hpp"
#include "support/error_text.hpp"
#include "support/temporary_folder.hpp"

namespace {

using mixbit::error_id;
using mixbit::mapped_file;
using namespace mixbit::test;

static_assert(!std::is_copy_constructible_v<mapped_file> && std::is_nothrow_move_constructible_v<mapped_file>);
static_assert(!std::is_copy_assignable_v<mapped_file> && std::is_nothrow_move_assignable_v<mapped_file>);

TEST_CASE("mapped_file: shows the content of files of every size around a page") {
  temporary_folder const folder;
  for (std::size_t const size : {0u, 1u, 4095u, 4096u, 4097u, 100000u}) {
    std::string text(size, '\0');
    for (std::size_t i = 0; i < size; ++i) text[i] = static_cast<char>(i * 31 + i / 4096);
    write_text(folder / "data", text);
    mapped_file const file{folder / "data"};
    CHECK(file.size() == size);
    CHECK(file.bytes().size() == size);
    CHECK(file.text() == text);
    CHECK(file.path() == folder / "data");
  }
  CHECK(mapped_file{}.bytes().empty());
}

TEST_CASE("mapped_file: a move keeps the address; the file may be replaced or removed meanwhile") {
  temporary_folder const folder;
  write_text(folder / "a", "first");
  write_text(folder / "b", "second");
  mapped_file file{folder / "a"};
  auto const* const address = file.bytes().data();
  mapped_file moved{std::move(file)};
  CHECK(moved.bytes().data() == address);
  CHECK(file.bytes().empty());  // NOLINT: a moved-from object maps nothing
  moved = mapped_file{folder / "b"};
  CHECK(moved.text() == "second");
  std::filesystem::remove(folder / "b");
  CHECK(moved.text() == "second");
}

TEST_CASE("mapped_file: a file that is written to while it is mapped is noticed, a replaced one does no harm") {
  temporary_folder const folder;
  auto const asked = [](mapped_file const& file) {
    return error_text(error_id::file_open, [&] { file.require_unchanged(); });
  };
  write_text(folder / "a", "first");
  mapped_file opened{folder / "a"};
  mapped_file const file{std::move(opened)};
  CHECK(asked(file) == "(no error)");
  CHECK(asked(opened) == "(no error)");  // NOLINT: it maps nothing
  auto const time = std::filesystem::last_write_time(folder / "a");
  std::filesystem::last_write_time(folder / "a", time + std::chrono::microseconds{1});  // other bytes of the same size
  CHECK(says(asked(file), "/a': was changed while it was read"));
  std::filesystem::last_write_time(folder / "a", time);
  CHECK(asked(file) == "(no error)");
  std::filesystem::resize_file(folder / "a", 2);
  std::filesystem::last_write_time(folder / "a", time);
  CHECK(says(asked(file), "/a': was changed while it was read: of 5 bytes it has 2"));
  write_text(folder / "b", "second");
  mapped_file const other{folder / "b"};
  write_text(folder / "c", "third");
  std::filesystem::rename(folder / "c", folder / "b");
  CHECK(asked(other) == "(no error)");
  std::filesystem::remove(folder / "b");
  CHECK(asked(other) == "(no error)");
  CHECK(other.text() == "second");
  write_text(folder / "empty", "");
  mapped_file const empty{folder / "empty"};
  CHECK(asked(empty) == "(no error)");
  write_text(folder / "empty", "no more");
  CHECK(says(asked(empty), "of 0 bytes it has 7"));
}

TEST_CASE("mapped_file: what cannot be mapped is refused by name, with the system's reason") {
  temporary_folder const folder;
  auto const open = [](std::filesystem::path const& path) {
    return error_text(error_id::file_open, [&] { mapped_file{path}; });
  };
  CHECK(says(open(folder / "missing"), "cannot open", "/missing'", "No such file or directory"));
  CHECK(says(open(folder.path()), "cannot read", folder.path().string(), "Is a directory"));
  CHECK(says(open("/dev/null"), "/dev/null", "not a regular file"));
  CHECK(says(open(folder / "two\nlines\x7f"), "two\\x0alines\\x7f'"));
  write_text(folder / "file", "x");
  CHECK(says(open(folder / "file/below"), "file/below", "Not a directory"));
}

}  // namespace
