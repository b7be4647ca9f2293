// A report as JSON: every number of it, for programs that watch a kernel.
#pragma once

#include <string>

#include "mixbit/config/strict_json.hpp"
#include "mixbit/validate/report.hpp"

namespace mixbit::validate {

namespace detail {

/// JSON has no NaN and no infinities: those are texts.
inline json_document number_to_json(float v) {
  if (fp::is_nan(v)) return "nan";
  if (!fp::is_finite(v)) return v > 0 ? "inf" : "-inf";
  return v;
}

inline json_document values_to_json(value_differences const& d) {
  json_document j;
  j["compared"] = d.compared;
  j["differing"] = d.differing;
  j["nan_lost"] = d.nan_lost;
  j["nan_made"] = d.nan_made;
  j["zero_signs"] = d.zero_signs;
  j["largest_ulps"] = d.largest_ulps;
  j["largest_error"] = number_to_json(d.largest_error);
  j["ulps"] = json_document::array();  // differences of more than half of `up_to`
  for (auto const& [bucket, count] : d.ulps)
    j["ulps"].push_back({{"up_to", std::uint64_t{1} << bucket}, {"count", count}});
  return j;
}

inline json_document codes_to_json(report const& r) {
  json_document j;
  j["compared"] = r.codes->compared;
  j["differing"] = r.codes->differing;
  j["readable"] = !r.codes_unreadable;
  j["steps"] = json_document::array();
  for (auto const& [step, count] : r.codes->steps)
    j["steps"].push_back({{"found_minus_expected", step}, {"count", count}});
  return j;
}

inline json_document index_to_json(int rank, extents const& at) {
  json_document j = json_document::array();
  for (int a = 0; a < rank; ++a) j.push_back(at[a]);
  return j;
}

inline json_document first_to_json(first_difference const& f) {
  json_document j;
  j["sample"] = f.sample;
  j["what"] = f.what;
  j["index"] = index_to_json(f.rank, f.index);
  j["group"] = f.group;
  j["amax"] = number_to_json(f.amax);
  if (f.expected_scale) j["expected_scale"] = number_to_json(*f.expected_scale);
  if (f.found_scale) j["found_scale"] = number_to_json(*f.found_scale);
  j["block"] = json_document::array();
  for (neighbour const& n : f.block) {
    json_document e;
    e["index"] = index_to_json(f.rank, n.index);
    e["x"] = number_to_json(n.x);
    if (n.expected) e["expected"] = number_to_json(*n.expected);
    if (n.found) e["found"] = number_to_json(*n.found);
    if (n.expected_code) e["expected_code"] = *n.expected_code;
    if (n.found_code) e["found_code"] = *n.found_code;
    j["block"].push_back(std::move(e));
  }
  return j;
}

}  // namespace detail

/// All fields; what was not compared is left out.
inline json_document to_json(report const& r) {
  json_document j;
  j["claim"] = r.claim;
  j["conformant"] = r.conformant();
  j["explained"] = r.explained();
  j["stochastic"] = r.stochastic;
  j["elements"] = r.elements;
  j["groups"] = r.groups;
  if (r.values) j["output"] = detail::values_to_json(*r.values);
  if (r.codes) j["codes"] = detail::codes_to_json(r);
  if (r.scales) {
    j["scales"] = detail::values_to_json(*r.scales);
    j["scales"]["one_a_group"] = !r.scales_miscounted;
  }
  if (r.tensor_scale) j["tensor_scale"] = detail::values_to_json(*r.tensor_scale);
  if (r.first) j["first_difference"] = detail::first_to_json(*r.first);
  j["all_that_differ"] = r.confined;
  j["hypotheses"] = json_document::array();
  for (hypothesis const& h : r.hypotheses)
    j["hypotheses"].push_back(
        {{"differs_by", h.text}, {"mismatches", h.mismatches}, {"compared", h.compared}, {"changes", h.changes}});
  j["notes"] = r.notes;
  return j;
}

}  // namespace mixbit::validate
