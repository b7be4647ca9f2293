#include "choices.hpp"

#include <algorithm>
#include <optional>
#include <utility>

#include "gguf_layer.hpp"
#include "layer_form.hpp"
#include "mixbit/core/error.hpp"

namespace quantize_checkpoint {

namespace {

using mixbit::candidate_stat;

class chooser {
 public:
  chooser(std::string const& to, mixbit::model<backend>& model, mixbit::search<backend> const& search,
          stored_model const& stored)
      : to_{to}, model_{model}, search_{search}, stored_{stored} {
    uses_.resize(search.formats().size());
  }

  mixbit::candidate_stats run(std::vector<std::string>& notes) {
    auto stats = search_.stats();
    for (auto& group : stats)
      std::erase_if(group.candidates, [&](auto const& c) { return c.recipe >= 0 && !is_possible(group, c, notes); });
    for (auto const& format : uses_)
      if (!format.possible && !format.first_refusal.empty())
        mixbit::fail(mixbit::error_id::format_value, format.first_refusal, "; and so no layer can have this format");
    if (to_ == "gguf")
      for (auto& group : stats)
        for (auto& c : group.candidates) charge(group, c);
    return stats;
  }

 private:
  struct format_use {
    bool possible = false;      ///< in some group
    std::string first_refusal;  ///< empty: none
  };

  bool is_possible(mixbit::group_stats const& group, candidate_stat const& c, std::vector<std::string>& notes) {
    auto& format = uses_[static_cast<std::size_t>(c.recipe)];
    auto const why = refusal(group, c);
    if (!why) return format.possible = true;
    if (format.first_refusal.empty()) format.first_refusal = *why;
    notes.push_back("no choice: " + *why + together(group));
    return false;
  }

  /// GGUF's own bits: its scales are float16 where quantizers count with float32.
  void charge(mixbit::group_stats const& group, candidate_stat& c) {
    if (c.recipe < 0) return;
    c.bits = 0;
    for (auto const& name : group.modules) c.bits += gguf_bits(layer_of(name, c));
  }

  layer layer_of(std::string const& name, candidate_stat const& c) {
    return layer_under(to_, model_, *stored_.find(name), search_.formats()[static_cast<std::size_t>(c.recipe)]);
  }

  static std::string together(mixbit::group_stats const& group) {
    if (group.modules.size() < 2) return {};
    std::string text;
    for (auto const& name : group.modules) text += (text.empty() ? "" : ", ") + name;
    return " (" + text + " choose as one)";
  }

  /// Why one of the layers cannot have it; none: all can.
  std::optional<std::string> refusal(mixbit::group_stats const& group, candidate_stat const& c) {
    for (auto const& name : group.modules) {
      try {
        (void)layer_of(name, c);
      } catch (mixbit::error const& e) {
        if (e.id() != mixbit::error_id::format_value) throw;
        return std::string{e.message()};
      }
    }
    return std::nullopt;
  }

  std::string const& to_;
  mixbit::model<backend>& model_;
  mixbit::search<backend> const& search_;
  stored_model const& stored_;
  std::vector<format_use> uses_;  ///< by the search's numbers of formats
};

}  // namespace

mixbit::candidate_stats possible_choices(std::string const& to, mixbit::model<backend>& model,
                                         mixbit::search<backend> const& search, stored_model const& stored,
                                         std::vector<std::string>& notes) {
  return chooser{to, model, search, stored}.run(notes);
}

}  // namespace quantize_checkpoint
