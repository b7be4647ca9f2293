// What a search is told: which formats where, what they cost, how sensitivity is measured, and what the host runs.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mixbit/autoquant/budget.hpp"
#include "mixbit/autoquant/cost_model.hpp"
#include "mixbit/autoquant/kv_cache.hpp"
#include "mixbit/autoquant/latency_table.hpp"
#include "mixbit/autoquant/score_method.hpp"
#include "mixbit/config/grouping_rule.hpp"
#include "mixbit/config/quantize_config.hpp"
#include "mixbit/core/tensor_view.hpp"

namespace mixbit {

class search_checkpoint;

/// Formats of its own for some modules, in place of the search's. As in ModelOpt a space covers a group whole or not
/// at all, and a group is covered by one space at most.
struct module_search_space {
  std::vector<pattern> modules = {};
  std::vector<quantize_config> formats = {};
  bool allow_no_quant = true;  ///< false with one format: these modules have it, and are not searched
};

struct search_options {
  std::vector<quantize_config> formats = {};
  effective_bits target = {};  ///< at least one of this, max_bytes and latency
  std::vector<pattern> disabled_layers = {};  ///< a disabled member disables its group
  std::vector<grouping_rule> grouping = {};   ///< the user's; they come before the default ones
  cost_model cost = cost_model::exact;
  bool allow_no_quant = true;     ///< is "do not quantize" a choice?
  bool default_grouping = true;   ///< do default_grouping_rules() follow the user's?
  std::vector<module_search_space> module_search_spaces = {};
  /// What modules outside of the spaces have, unsearched; there are no `formats` then. Its entries see full names here,
  /// so that one may leave layers unquantized; it is active while the others are scored, and is paid for.
  std::optional<quantize_config> fixed_quantization_config = std::nullopt;
  /// At whose output modules are scored: the key is that point's name, and the host scores it by search::regions.
  std::vector<grouping_rule> score_rules = {};
  std::optional<active_moe> active_experts = std::nullopt;  ///< weights of routed experts count for those that run
  std::vector<pattern> cost_excluded = {};  ///< groups all of whose members match cost nothing, and buy nothing
  std::optional<kv_cache_cost> kv_cache = std::nullopt;  ///< counts caches, and searches those that a space covers
  score_method method = score_method::gradient;
  /// Choose by scores that do not rise with the bits of a group's formats, as ModelOpt does: each the least of its own
  /// and those of the formats before it. What was measured stays beside them (candidate_stat::raw_score).
  bool monotone_scores = false;
  /// Bytes of all weights that are searched, and of what else is counted; active_experts and cost_excluded make nothing
  /// of them smaller.
  std::optional<std::int64_t> max_bytes = std::nullopt;
  std::optional<latency_table> latency = std::nullopt;  ///< a time for each format of each group, and their limit
  /// gradient: what output differences that a host keeps from forward to backward may take (quantizer/score.hpp). Calls
  /// whose differences fit keep them, the others recompute; 0: all recompute. None: the host decides alone.
  std::optional<std::int64_t> difference_bytes = std::nullopt;
  std::shared_ptr<search_checkpoint> checkpoint = {};  ///< keeps what is done, and goes on with it: search_folder
};

/// What a choice may cost by these options.
inline search_limits limits_of(search_options const& o) {
  if (o.max_bytes && (*o.max_bytes < 1 || *o.max_bytes > std::int64_t{1} << 50))
    fail(error_id::config_value, "search_options.max_bytes is ", *o.max_bytes, "; it is 1 to 2^50");
  search_limits limits{o.target, o.max_bytes};
  if (o.latency) limits.max_nanoseconds = latency_lookup{*o.latency}.limit();
  return limits;
}

/// Takes the logits of a forward: [..., vocabulary], in any compute type; they are read before it returns.
using logits_sink = std::function<void(const_tensor_ref)>;

/// Makes the scores of each group monotone, in the order of its candidates, which is that of their nominal bits. One
/// that is not a number stays.
inline void make_monotone(candidate_stats& stats) {
  for (auto& g : stats) {
    if (!g.is_open()) continue;
    double least = std::numeric_limits<double>::infinity();
    for (auto& c : g.candidates)
      if (!std::isnan(c.score)) c.score = least = std::min(least, c.score);
  }
}

/// What the host runs. Steps are numbered from 0.
struct search_steps {
  int calibration = 0, scoring = 0;
  std::function<void(int)> calibrate = {};  ///< a forward over batch i
  std::function<void(int)> score = {};      ///< gradient: a forward and a backward whose layers call mixbit::score
  std::function<void(std::string_view phase, int done, int total)> progress = {};  ///< may be empty
  /// kl_div: a forward over batch i that hands its logits over, once.
  std::function<void(int, logits_sink const&)> logits = {};
  /// kl_div, may be empty: the same from module `first` on. Nothing that runs before it has changed since `logits`
  /// was last called, with the same i: its activations may be kept. Modules are walked in the order in which they run.
  std::function<void(int, std::string_view first, logits_sink const&)> logits_from = {};
  std::function<double(int)> metric = {};  ///< degradation: the user's metric over batch i; lower is better
};

}  // namespace mixbit
