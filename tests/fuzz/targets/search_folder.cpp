// A search's folder, changed in one of its files. The digest that ties a file to its search is put in for the text
// "SEARCH_OF_INPUTS" of an input.
#include "mixbit/io/search_folder.hpp"

#include "fuzz/target.hpp"

namespace {

using namespace mixbit;

candidate_stats one_group() {
  group_stats up;
  up.name = "up.quant_recipe";
  up.modules = {"up"};
  up.candidates.resize(2);
  up.candidates[0].format = "INT8";
  up.candidates[1].format = "NONE";
  return {up};
}

struct facts {
  std::vector<search_format> formats{{"INT8", preset("INT8_DEFAULT_CFG"), 8}};
  candidate_stats groups = one_group();
  search_facts all{{{"method", "gradient"}}, formats, groups, {{"up", "up"}}, {{"up", "0123"}}};
};

std::filesystem::path path() { return fuzz::folder() / "search"; }

/// The folder, begun; a search's digest from a file that it writes.
search_folder& begun(std::string& digest) {
  static facts const of;
  static std::string search;
  static search_folder folder = [] {
    search_folder made{path()};
    made.begin(of.all);
    made.save_scores({1, {0.5}, {1}});
    auto const file = safetensors_file::open(path() / "scores.safetensors");
    for (auto const& [key, value] : file.metadata())
      if (key == "search") search = value;
    return made;
  }();
  digest = search;
  return folder;
}

void put(char const* name, fuzz::bytes input, std::string const& digest) {
  std::string text{fuzz::text_of(input)};
  constexpr std::string_view place = "SEARCH_OF_INPUTS";
  if (auto const at = text.find(place); at != text.npos && digest.size() == place.size())
    text.replace(at, place.size(), digest);
  test::write_text(path() / name, text);
}

fuzz::target const document{"search_json", fuzz::kind::json, [](fuzz::bytes input) {
  static facts const of;
  std::filesystem::create_directories(path());
  put("search.json", input, "");
  search_folder{path()}.begin(of.all);
}};

fuzz::target const scores{"search_scores", fuzz::kind::safetensors, [](fuzz::bytes input) {
  std::string digest;
  auto& folder = begun(digest);
  put("scores.safetensors", input, digest);
  folder.load_scores();
}};

fuzz::target const calibration{"search_calibration", fuzz::kind::safetensors, [](fuzz::bytes input) {
  std::string digest;
  auto& folder = begun(digest);
  content_digest name;
  name.add("max");
  put(("calibration-" + name.text() + ".safetensors").c_str(), input, digest);
  kept_calibration read{"max", {{"up", "INT8", {{"weight_quantizer", {}, {}, {{}}}}, {}, {}, {}}}, {}};
  folder.load_calibration(read);
}};

}  // namespace
