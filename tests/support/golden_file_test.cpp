#include <doctest/doctest.h>

#include <string>

#include "support/error_text.hpp"
#include "support/golden_file.hpp"
#include "support/safetensors_bytes.hpp"
#include "support/temporary_folder.hpp"

namespace {

using namespace mixbit;
using namespace mixbit::test;

TEST_CASE("golden_file: opens the cases and their tensors together, or the cases alone") {
  temporary_folder const folder;
  std::string const header = R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})";
  write_text(folder / "suite.safetensors", safetensors_bytes(header, {"\0\0\x80\x3f", 4}));
  write_text(folder / "suite.json", R"({"cases":[{"input":"x"}]})");
  write_text(folder / "alone.json", "[]");
  golden_file const suite{folder.path(), "suite"};
  auto const name = suite.cases()["cases"][0]["input"].get<std::string>();
  CHECK(to_string(suite.tensor(name)) == "[1]");
  CHECK(suite.floats(name) == std::vector<float>{1.0f});
  golden_file const alone{folder.path(), "alone"};
  CHECK(alone.cases().empty());
  CHECK(says(error_text(error_id::file_content, [&] { alone.tensor("x"); }), "no tensors"));
  CHECK(golden_file::exists(folder.path(), "suite"));
  CHECK_FALSE(golden_file::exists(folder.path(), "other"));
  CHECK(golden_file::exists(golden_folder() / "export/fp8", "config"));
}

}  // namespace
