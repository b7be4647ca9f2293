// A report as text: one screen, the verdict first.
#pragma once

#include <iomanip>
#include <locale>
#include <sstream>
#include <string>

#include "mixbit/validate/report.hpp"

namespace mixbit::validate {

namespace detail {

inline std::string percent(std::uint64_t part, std::uint64_t whole) {
  std::ostringstream out;
  out.imbue(std::locale::classic());
  out << std::setprecision(3) << (whole ? 100.0 * static_cast<double>(part) / static_cast<double>(whole) : 0.0) << " %";
  return out.str();
}

class text_writer {
 public:
  std::string write(report const& r) {
    out_.imbue(std::locale::classic());
    out_ << std::setprecision(9) << "conformance to " << r.claim << ": " << r.elements << " elements in " << r.groups
         << (r.groups == 1 ? " group\n" : " groups\n");
    verdict(r);
    if (r.values) values("output", *r.values);
    if (r.codes) codes(r);
    if (r.scales) {
      if (r.scales_miscounted) out_ << "scales: another number than there are groups\n";
      values("scales", *r.scales);
    }
    if (r.tensor_scale) values("tensor scale", *r.tensor_scale);
    for (std::string const& what : r.confined) out_ << "all elements that differ " << what << '\n';
    if (r.first) first(*r.first);
    hypotheses(r);
    for (std::string const& note : r.notes) out_ << "note: " << note << '\n';
    return out_.str();
  }

 private:
  void verdict(report const& r) {
    if (r.conformant()) out_ << "CONFORMS: matches in every element\n";
    else if (r.explained()) out_ << "DIFFERS: matches in every element with: " << r.hypotheses.front().text << '\n';
    else if (r.stochastic)
      out_ << "DIFFERS: every element is one of its two neighbours, but by no one rule: stochastic rounding?\n";
    else out_ << "DIFFERS: no convention that was tried matches in every element\n";
  }

  void values(char const* name, value_differences const& d) {
    out_ << name << ": " << d.differing << " of " << d.compared << " differ";
    if (d.differing == 0) {
      out_ << '\n';
      return;
    }
    out_ << " (" << percent(d.differing, d.compared) << ")";
    if (d.largest_ulps > 0) out_ << ", by at most " << d.largest_error << " or " << d.largest_ulps << " ulp";
    out_ << '\n';
    if (d.nan_lost > 0) out_ << "  NaN lost " << d.nan_lost << '\n';
    if (d.nan_made > 0) out_ << "  NaN made " << d.nan_made << '\n';
    if (d.zero_signs > 0) out_ << "  sign of zero " << d.zero_signs << '\n';
    if (!d.ulps.empty()) out_ << "  by ulp up to";
    std::size_t shown = 0;
    for (auto const& [bucket, count] : d.ulps)
      if (++shown <= 10) out_ << "  " << bucket_name(bucket) << ": " << count;
    if (shown > 10) out_ << "  ... (" << shown - 10 << " more)";
    if (!d.ulps.empty()) out_ << '\n';
  }

  static std::string bucket_name(int bucket) {
    return bucket <= 4 ? std::to_string(1 << bucket) : "2^" + std::to_string(bucket);
  }

  void codes(report const& r) {
    if (r.codes_unreadable) {
      out_ << "codes: another number of bytes than the format's layout has\n";
      return;
    }
    out_ << "codes: " << r.codes->differing << " of " << r.codes->compared << " differ";
    if (r.codes->differing > 0)
      out_ << " (" << percent(r.codes->differing, r.codes->compared) << "); found - expected:";
    int shown = 0;
    for (auto const& [step, count] : r.codes->steps) {
      if (++shown == 9) {
        out_ << "  ... (" << r.codes->steps.size() - 8 << " more)";
        break;
      }
      if (step == 0) out_ << "  sign of zero: " << count;
      else out_ << "  " << std::showpos << step << std::noshowpos << ": " << count;
    }
    out_ << '\n';
  }

  void index(int rank, extents const& at) {
    out_ << '[';
    for (int a = 0; a < rank; ++a) out_ << (a ? "," : "") << at[a];
    out_ << ']';
  }

  void first(first_difference const& f) {
    out_ << "first difference: " << f.what << " at ";
    index(f.rank, f.index);
    out_ << " of " << f.sample << ", group " << f.group << " with amax " << f.amax;
    if (f.expected_scale) out_ << ", scale " << *f.expected_scale << " expected, " << *f.found_scale << " found";
    out_ << '\n';
    for (std::size_t i = 0; i < f.block.size(); ++i) {
      neighbour const& n = f.block[i];
      out_ << (i == f.at ? "  > " : "    ");
      index(f.rank, n.index);
      out_ << " x " << n.x;
      if (n.expected) out_ << "  expected " << *n.expected << "  found " << *n.found;
      if (n.expected_code) out_ << "  code expected " << *n.expected_code << "  found " << *n.found_code;
      out_ << '\n';
    }
  }

  void hypotheses(report const& r) {
    if (r.conformant()) {
      bool said = false;
      for (hypothesis const& h : r.hypotheses)
        if (h.changes > 0) {
          out_ << (said ? "" : "these data do not tell the claim from:\n") << "  " << h.text << '\n';
          said = true;
        }
      return;
    }
    out_ << "conventions, by elements that contradict them:\n";
    for (hypothesis const& h : r.hypotheses) {
      out_ << "  " << std::setw(10) << h.mismatches << "  " << h.text;
      out_ << (h.mismatches == 0 ? "  (matches)\n" : "\n");
    }
  }

  std::ostringstream out_;
};

}  // namespace detail

/// The report for a terminal, ending in a line feed.
inline std::string to_text(report const& r) { return detail::text_writer{}.write(r); }

}  // namespace mixbit::validate
