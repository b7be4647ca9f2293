// A search's checkpoint as a folder: search.json says what it is of, and a safetensors file each for a calibration, for
// the scores and for each round of a refinement holds what is done. Each file appears whole or not at all and stays
// where a later one cannot be written, so that a run that is killed, or whose disk is full, goes on from its last step.
//
//   options.checkpoint = std::make_shared<mixbit::search_folder>("run/checkpoint");
//   search<B> s{m, options};  s.run(steps);                      // a second time: goes on, or has all of it
//
// A folder belongs to one run at a time. What search.json does not agree with is refused by name; what it cannot know,
// the data and what of a host is outside of its walk, the host can add as `more`.
#pragma once

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mixbit/autoquant/search_checkpoint.hpp"
#include "mixbit/core/digest.hpp"
#include "mixbit/io/json.hpp"
#include "mixbit/io/kept_recipes.hpp"

namespace mixbit {

namespace detail {

/// Raised when a search computes something else from the same facts, or keeps it in another way.
inline constexpr int search_folder_version = 1;

inline json_document texts(std::vector<std::pair<std::string, std::string>> const& pairs) {
  auto j = json_document::object();
  auto& members = j.get_ref<json_document::object_t&>();  // its own insertion looks each key up
  for (auto const& [name, text] : pairs) members.json_document::object_t::Container::emplace_back(name, text);
  return j;
}

inline json_document search_document(search_facts const& facts,
                                     std::vector<std::pair<std::string, std::string>> const& more) {
  json_document j{{"version", search_folder_version}, {"options", texts(facts.options)}};
  auto& formats = j["formats"] = json_document::object();
  for (auto const& f : facts.formats) formats[f.label] = json_document::parse(config_to_text(f.config));
  auto groups = json_document::array();
  for (auto const& g : facts.groups) {
    auto labels = json_document::array();
    for (auto const& c : g.candidates) labels.push_back(c.format);
    groups.push_back({{"name", g.name}, {"modules", g.modules}, {"formats", std::move(labels)}});
  }
  j["groups"] = std::move(groups);
  j["score_points"] = texts(facts.score_points);
  j["weights"] = texts(facts.weights);
  j["host"] = texts(more);
  return j;
}

/// "weights.mlp.up is 'a', and was 'b'": the first place where two documents differ, in the order of the keys.
inline std::string first_change(json_document const& now, json_document const& then, std::string const& path = "") {
  auto const below = [&](std::string const& key) { return path.empty() ? key : path + '.' + key; };
  if (now.is_object() && then.is_object() && now.size() == then.size()) {
    auto other = then.begin();
    for (auto const& [key, value] : now.items()) {
      if (other.key() != key) return concat(path, " has '", key, "', and had '", other.key(), "'");
      if (auto found = first_change(value, *other, below(key)); !found.empty()) return found;
      ++other;
    }
    return {};
  }
  if (now.is_array() && then.is_array() && now.size() == then.size()) {
    for (std::size_t i = 0; i < now.size(); ++i)
      if (auto found = first_change(now[i], then[i], concat(path, '[', i, ']')); !found.empty()) return found;
    return {};
  }
  if (now == then) return {};
  if ((now.is_object() && then.is_object()) || (now.is_array() && then.is_array()))
    return concat(path, " has ", now.size(), " member(s), and had ", then.size());
  return concat(path, " is ", excerpt(now), ", and was ", excerpt(then));
}

}  // namespace detail

class search_folder final : public search_checkpoint {
 public:
  /// `more`: what else has to be the same, a name and a text each ("text" -> its digest).
  explicit search_folder(std::filesystem::path folder, std::vector<std::pair<std::string, std::string>> more = {})
      : folder_{std::move(folder)}, more_{std::move(more)} {}

  /// Throws `file_content` naming the first thing that has changed, and `file_open` where the folder cannot be written.
  void begin(search_facts const& facts) override {
    auto const document = detail::search_document(facts, more_);
    auto const path = folder_ / "search.json";
    std::error_code code;
    std::filesystem::create_directories(folder_, code);
    if (code) fail_path("create", folder_, code.value());
    remove_temporaries();
    if (!std::filesystem::exists(path))
      write_file_atomically(path, dump_json(document, in_quotes(path), 2) + "\n", durability::synced);
    else if (auto const change = detail::first_change(document, read_json_file(path)); !change.empty())
      fail(error_id::file_content, in_quotes(path), ": is the checkpoint of another search: ", change,
           "; give another folder, or remove this one");
    content_digest made;
    made.add(dump_json(document, "search.json"));
    search_ = made.text();
  }

  bool load_calibration(kept_calibration& calibration) override {
    auto const path = file_of(calibration);
    if (!std::filesystem::exists(path)) return false;
    auto const file = safetensors_file::open(path);
    auto const metadata = checked(file, calibration.name);
    for (auto& recipe : calibration.recipes) detail::read_recipe(file, metadata, prefix_of(recipe), recipe);
    auto const notes = parse(file, metadata, "notes"), tokens = parse(file, metadata, "tokens");
    calibration.report = {};
    for (auto const& line : notes) calibration.report.notes.push_back(text_of(file, line));
    for (auto const& [layer, n] : tokens.items()) {
      if (!n.is_number_unsigned())
        fail(error_id::file_content, file.label(), ": the tokens of ", layer, " are no number");
      calibration.report.tokens.layers.push_back({layer, n.get<std::uint64_t>()});
    }
    return true;
  }

  void save_calibration(kept_calibration const& calibration) override {
    detail::file_tensors tensors;
    safetensors_metadata metadata{{"search", search_}, {"of", calibration.name}};
    auto notes = json_document::array();
    for (auto const& n : calibration.report.notes) notes.push_back(n);
    auto tokens = json_document::object();
    auto& counts = tokens.get_ref<json_document::object_t&>();
    for (auto const& l : calibration.report.tokens.layers)
      counts.json_document::object_t::Container::emplace_back(l.layer, l.tokens);
    metadata.emplace_back("notes", dump_json(notes, "notes"));
    metadata.emplace_back("tokens", dump_json(tokens, "tokens"));
    for (auto const& r : calibration.recipes) detail::add_recipe(tensors, metadata, prefix_of(r), r);
    write_safetensors(file_of(calibration), tensors.all(), metadata, durability::synced);
  }

  std::optional<kept_scores> load_scores() override { return read_scores(scores_file(), "scores"); }
  void save_scores(kept_scores const& scores) override { write_scores(scores_file(), "scores", scores); }

  std::optional<kept_scores> load_part(std::string const& name) override { return read_scores(part_file(name), name); }
  void save_part(std::string const& name, kept_scores const& scores) override {
    write_scores(part_file(name), name, scores);
  }

 private:
  std::optional<kept_scores> read_scores(std::filesystem::path const& path, std::string const& of) const {
    if (!std::filesystem::exists(path)) return std::nullopt;
    auto const file = safetensors_file::open(path);
    checked(file, of);
    kept_scores scores;
    scores.values = numbers<double>(file, "values", dtype::f64);
    scores.counts = numbers<std::int64_t>(file, "counts", dtype::i64);
    scores.steps = static_cast<int>(file.at("values").shape[0]);
    return scores;
  }

  void write_scores(std::filesystem::path const& path, std::string const& of, kept_scores const& scores) const {
    std::int64_t const steps = scores.steps, count = static_cast<std::int64_t>(scores.counts.size()),
                       width = steps == 0 ? 0 : static_cast<std::int64_t>(scores.values.size()) / steps;
    std::vector<named_tensor> const tensors{
        {"values", {dense_geometry(dtype::f64, {steps, width}), scores.values.data()}},
        {"counts", {dense_geometry(dtype::i64, {count}), scores.counts.data()}}};
    write_safetensors(path, tensors, {{"search", search_}, {"of", of}}, durability::synced);
  }

  std::filesystem::path scores_file() const { return folder_ / "scores.safetensors"; }
  /// By a digest of the name, which may hold anything.
  std::filesystem::path file_of(kept_calibration const& calibration) const {
    return named_file("calibration-", calibration.name);
  }
  std::filesystem::path part_file(std::string const& name) const { return named_file("part-", name); }
  std::filesystem::path named_file(char const* kind, std::string const& of) const {
    content_digest name;
    name.add(of);
    return folder_ / (kind + name.text() + ".safetensors");
  }
  static std::string prefix_of(kept_recipe const& r) { return r.recipe + '/' + r.module + '/'; }

  /// What a killed run was writing.
  void remove_temporaries() const {
    std::error_code ignored;
    for (auto const& entry : std::filesystem::directory_iterator{folder_, ignored}) {
      auto const name = entry.path().filename().string();
      if (name.starts_with(".mixbit-") && name.ends_with(".tmp")) std::filesystem::remove(entry.path(), ignored);
    }
  }

  /// The metadata of a file that is of this search and of what `of` names.
  detail::metadata_map checked(safetensors_file const& file, std::string_view of) const {
    auto metadata = detail::map_of(file.metadata());
    for (auto const& [key, wanted] : {std::pair{"search", std::string_view{search_}}, std::pair{"of", of}})
      if (auto const at = metadata.find(key); at == metadata.end() || at->second != wanted)
        fail(error_id::file_content, file.label(), ": '", key, "' is ",
             at == metadata.end() ? std::string{"missing"} : in_quotes(at->second), ", not ", in_quotes(wanted),
             ": it is of another search; give another folder, or remove this one");
    return metadata;
  }
  static json_document parse(safetensors_file const& file, detail::metadata_map const& metadata,
                             std::string const& key) {
    auto const at = metadata.find(key);
    if (at == metadata.end()) fail(error_id::file_content, file.label(), ": has no '", key, "'");
    return parse_json_strict(at->second, file.label() + ": " + key, error_id::file_content);
  }
  static std::string text_of(safetensors_file const& file, json_document const& j) {
    if (!j.is_string()) fail(error_id::file_content, file.label(), ": a note is no text");
    return j.get<std::string>();
  }
  template <class T>
  static std::vector<T> numbers(safetensors_file const& file, std::string const& name, dtype type) {
    auto const t = file.at(name);
    if (t.type != type || t.rank == 0)
      fail(error_id::file_content, file.label(), ": '", name, "' is ", to_string(t), " of ", name_of(t.type));
    std::vector<T> values(static_cast<std::size_t>(t.size()));
    auto const bytes = file.bytes(name);
    if (!bytes.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  }

  std::filesystem::path folder_;
  std::vector<std::pair<std::string, std::string>> more_;
  std::string search_;
};

}  // namespace mixbit
