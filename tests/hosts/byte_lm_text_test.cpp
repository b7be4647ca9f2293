// The text of byte_lm and the windows of it.
#include <doctest/doctest.h>

#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "byte_lm/text.hpp"
#include "support/error_text.hpp"
#include "support/golden_file.hpp"
#include "support/temporary_folder.hpp"

namespace byte_lm {
namespace {

using mixbit::error_id;
using mixbit::test::error_text;
using mixbit::test::temporary_folder;
using mixbit::test::write_text;

TEST_CASE("licences: files without links, in the order of bytes, a newline between two") {
  temporary_folder const folder;
  write_text(folder / "b", "second\n");
  write_text(folder / "B-2", "first");
  write_text(folder / "é", "last");
  std::filesystem::create_symlink(folder / "b", folder / "a");
  std::filesystem::create_directory(folder / "c");
  CHECK(debian_licences(folder.path()) == "first\nsecond\n\nlast");
}

TEST_CASE("licences: a folder that is missing or empty") {
  temporary_folder const folder;
  CHECK(error_text(error_id::file_open, [&] { debian_licences(folder.path()); }) ==
        "[mixbit.501] " + folder.path().string() + ": holds no licences; name a text with --text");
  CHECK(error_text(error_id::file_open, [&] { debian_licences(folder / "none"); }) ==
        "[mixbit.501] " + (folder / "none").string() + ": holds no licences; name a text with --text");
  CHECK(error_text(error_id::file_open, [&] { read_text(folder / "none"); }) ==
        "[mixbit.501] " + (folder / "none").string() + ": cannot be opened");
  CHECK(error_text(error_id::file_open, [&] { read_text(folder.path()); }) ==
        "[mixbit.501] " + folder.path().string() + ": is not a regular file");
  CHECK(error_text(error_id::file_open, [&] { read_text("/dev/zero"); }) ==
        "[mixbit.501] /dev/zero: is not a regular file");
}

TEST_CASE("the golden's windows, cut from Debian 12's licences, are the golden's bytes") {
  std::error_code none;
  if (!std::filesystem::exists("/usr/share/common-licenses", none)) {
    MESSAGE("skipped: no /usr/share/common-licenses here");
    return;
  }
  mixbit::test::golden_file const golden{"lm"};
  std::string const text = debian_licences();
  auto const plan = read_windows(std::string{MIXBIT_GOLDEN_DIR} + "/lm.json", static_cast<std::int64_t>(text.size()));
  CHECK(plan.window == 129);
  CHECK(plan.calibration.size() == 16);
  CHECK(plan.score.size() == 8);
  auto const check = [&](char const* name, std::int64_t step, std::vector<std::int64_t> const& offsets) {
    auto const cut = cut_windows(text, offsets, plan.window);
    auto const tensor = golden.tensor(name);
    REQUIRE(cut.count * cut.length == tensor.shape[tensor.rank - 2] * tensor.shape[tensor.rank - 1]);
    auto const* const expected = tensor.as<std::uint8_t>() + step * cut.count * cut.length;
    CHECK(std::memcmp(cut.bytes.data(), expected, cut.bytes.size()) == 0);
  };
  for (std::size_t i = 0; i < plan.calibration.size(); ++i)
    check("calibration", static_cast<std::int64_t>(i), plan.calibration[i]);
  for (std::size_t i = 0; i < plan.score.size(); ++i) check("score", static_cast<std::int64_t>(i), plan.score[i]);
  check("validation", 0, plan.validation);
}

TEST_CASE("windows: inputs and targets are one byte apart, slices end where the windows end") {
  auto const cut = cut_windows("abcdefgh", {0, 3, 4}, 4);
  CHECK(std::string{cut.bytes.begin(), cut.bytes.end()} == "abcddefgefgh");
  CHECK(cut.inputs().length == 3);
  CHECK(cut.inputs().row(1)[0] == 'd');
  CHECK(cut.targets().row(1)[0] == 'e');
  CHECK(cut.targets().row(2)[2] == 'h');
  auto const tail = cut.slice(1, 8);
  CHECK(tail.count == 2);
  CHECK(std::string{tail.bytes.begin(), tail.bytes.end()} == "defgefgh");
}

TEST_CASE("windows taken evenly lie within the text, apart from one another, and reach its end") {
  for (std::int64_t const size : {std::int64_t{33'024}, std::int64_t{250'001}}) {
    auto const plan = even_windows(size, 129);
    CHECK(plan.calibration.size() == 16);
    CHECK(plan.score.size() == 8);
    CHECK(plan.validation.size() == 64);
    std::set<std::int64_t> all(plan.validation.begin(), plan.validation.end());
    for (auto const* steps : {&plan.calibration, &plan.score})
      for (auto const& step : *steps) {
        CHECK(step.size() == 8);
        all.insert(step.begin(), step.end());
      }
    REQUIRE(all.size() == 256);
    CHECK(*all.begin() == 0);
    CHECK(*all.rbegin() == size - 129);
    for (auto at = all.begin(), next = std::next(at); next != all.end(); ++at, ++next) CHECK(*next - *at >= 129);
  }
  CHECK(even_windows(129, 129).validation.back() == 0);
  CHECK(error_text(error_id::file_content, [] { even_windows(128, 129); }) ==
        "[mixbit.503] the text has 128 bytes, less than a window of 129");
}

TEST_CASE("a windows file that does not fit the text or lacks something is one line") {
  temporary_folder const folder;
  std::string const path = (folder / "windows.json").string();
  nlohmann::json const good{{"window", 4},
                            {"calibration_windows", {{0, 1}, {2}}},
                            {"score_windows", {{96}}},
                            {"validation_windows", {5, 6, 7}},
                            {"other", "left alone"}};
  auto const read = [&](nlohmann::json const& object) {
    write_text(path, object.dump());
    return read_windows(path, 100);
  };
  auto const plan = read(good);
  CHECK(plan.calibration == std::vector<std::vector<std::int64_t>>{{0, 1}, {2}});
  CHECK(plan.score[0][0] == 96);
  CHECK(plan.validation == std::vector<std::int64_t>{5, 6, 7});

  auto const refused = [&](char const* key, nlohmann::json const& value) {
    nlohmann::json bad = good;
    bad[key] = value;
    std::string const text = error_text(error_id::file_content, [&] { read(bad); });
    std::string const begin = "[mixbit.503] " + path + ": field '" + key + "'";
    CHECK(text.starts_with(begin));
    return text.substr(std::min(begin.size(), text.size()));
  };
  CHECK(refused("score_windows", {{0}, {97}}) ==
        " step 1: the window of 4 bytes at 97 is not within the text of 100 bytes");
  CHECK(refused("calibration_windows", {{-1}}) ==
        " step 0: the window of 4 bytes at -1 is not within the text of 100 bytes");
  CHECK(refused("validation_windows", {0.5}) == " holds 0.5, not a byte offset");
  CHECK(refused("validation_windows", nlohmann::json::array()) == " is not a list of byte offsets");
  CHECK(refused("calibration_windows", {1, 2}) == " step 0 is not a list of byte offsets");
  CHECK(refused("score_windows", 3) == " is not a list of steps, each a list of byte offsets");
  CHECK(refused("window", 1) == " is 1, not a number of bytes from 2 on");
  nlohmann::json missing = good;
  missing.erase("validation_windows");
  CHECK(error_text(error_id::file_content, [&] { read(missing); }) ==
        "[mixbit.503] " + path + ": field 'validation_windows' is missing");
  for (char const* broken : {"{", "{\"window\": 1e999}", "{\"window\": 4, \"window\": 4}", ""}) {
    write_text(path, broken);
    std::string const text = error_text(error_id::file_format, [&] { read_windows(path, 100); });
    CHECK_MESSAGE(text.starts_with("[mixbit.502] '" + path + "': "), text);
  }
  std::string const none = folder.path().string();
  CHECK(error_text(error_id::file_open, [&] { read_windows(none, 100); }) ==
        "[mixbit.501] cannot read '" + none + "': Is a directory");
}

}  // namespace
}  // namespace byte_lm
