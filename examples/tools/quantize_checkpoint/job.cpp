#include "job.hpp"

#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "mixbit/autoquant/json.hpp"
#include "mixbit/config/attribute_json.hpp"
#include "mixbit/core/quoted.hpp"
#include "other_files.hpp"
#include "output_form.hpp"
#include "partial_output.hpp"
#include "progress.hpp"
#include "task.hpp"

namespace quantize_checkpoint {

namespace fs = std::filesystem;

namespace {

/// Names come from files, and may hold what a terminal obeys.
std::string printable(std::string const& text) { return mixbit::one_line(text, text.size()); }

class job {
 public:
  explicit job(options const& o) : task_{o}, form_{output_form_of(task_)} {}

  void run() {
    for (auto const& note : task_.made.notes) std::printf("note: %s\n", printable(note).c_str());
    for (auto const& note : form_->notes()) std::printf("note: %s\n", printable(note).c_str());
    if (task_.wanted.dry_run) show();
    else write();
    summary();
  }

 private:
  std::int64_t bytes_of(std::string_view tensor) const { return task_.source.tensors().at(tensor).bytes(); }

  void show() const {
    for (auto const& name : task_.names) {
      auto const t = task_.source.tensors().at(name);
      auto const becomes = form_->of(name);
      std::string const shown = printable(std::string{name}), type{mixbit::name_of(t.type)};
      std::printf("%-56s %-5s %-14s %12lld -> %12lld  %s\n", shown.c_str(), type.c_str(),
                  mixbit::to_string(t).c_str(), static_cast<long long>(t.bytes()),
                  static_cast<long long>(becomes.bytes), printable(becomes.what).c_str());
    }
  }

  void summary() const {
    double before = 0, after = 0;
    for (auto const& name : task_.names) {
      before += static_cast<double>(bytes_of(name));
      after += static_cast<double>(form_->of(name).bytes);
    }
    auto const& made = task_.made;
    std::printf("%zu of %zu tensors quantized, %s -> %s in %zu file(s)\n", made.layers.size(), task_.names.size(),
                bytes_text(before).c_str(), bytes_text(after).c_str(), form_->files().size());
    if (made.plan)
      std::printf("%.4f effective bits of %.4f, weight error %.6e (%s)\n", made.plan->achieved.bits_per_element,
                  task_.wanted.target->value(), made.plan->achieved.score,
                  made.plan->achieved.optimal ? "proven least" : "best found");
  }

  /// All that the output's bytes depend on. Of the sources' files as they are read, whatever lies at their paths now.
  /// One that is changed in place without another size or time is not seen.
  std::string work(std::vector<partial_file> const& parts) const {
    std::string text = "quantize_checkpoint 5\nto " + task_.wanted.to + '\n' + form_->depends_on() + '\n';
    for (auto const& s : task_.source.tensors().shards())
      text += s.name + ' ' + std::to_string(s.file.size()) + ' ' + std::to_string(s.file.written_at()) + '\n';
    std::unordered_map<layer_format const*, std::string> known;  // few: a line each where it is first met
    for (auto const& l : task_.made.layers) {
      auto& number = known[l.how.get()];
      if (number.empty()) {
        number = std::to_string(known.size());
        text += number + ' ' + form_->depends_on(l) + ' ' + mixbit::attributes_to_json(l.how->attributes).dump() + '\n';
      }
      text += l.name + ' ' + number + '\n';
    }
    for (auto const& file : parts) text += file.name + ' ' + std::to_string(file.size) + '\n';
    return text;
  }

  void write() {
    auto const& names = task_.names;
    auto const parts = form_->files();
    std::vector<fs::path> places;
    for (auto const& file : parts) places.push_back(file.name);
    require_places(task_.wanted.out, places);
    partial_output files{task_.wanted.out, work(parts), parts};
    std::int64_t done = 0, all = 0;
    for (std::size_t i = 0; i < names.size(); ++i) {
      all += bytes_of(names[i]);
      if (i < files.done()) done += bytes_of(names[i]);
    }
    if (files.done() > 0) std::printf("goes on at tensor %zu of %zu\n", files.done() + 1, names.size());
    if (files.begins_anew())
      std::printf("begins anew: an earlier run left other work in %s (another model, form or format)\n",
                  task_.wanted.out.c_str());
    {
      progress bar{"quantizing", all, done};
      auto const& source = task_.source.tensors();
      source.while_unchanged([&] {
        for (std::size_t i = files.done(); i < names.size(); ++i) {
          form_->write(files, names[i], [&](std::int64_t bytes) { bar.show(done + bytes); });
          source.require_unchanged(names[i]);
          files.finished(i + 1);
          bar.show(done += bytes_of(names[i]));
        }
      });
    }
    publish(files);
  }

  void publish(partial_output& files) {
    mixbit::staged_output out{task_.wanted.out};
    form_->write_others(out);
    if (task_.made.plan) mixbit::write_json_file(out.path("plan.json"), mixbit::to_json(*task_.made.plan));
    files.move_into(out);
    out.commit();
  }

  task task_;
  std::unique_ptr<output_form> form_;
};

}  // namespace

void run(options const& o) { job{o}.run(); }

}  // namespace quantize_checkpoint
