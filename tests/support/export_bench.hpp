// What tests of an export start from: a source checkpoint on disk, a host over its modules, and somewhere to export to.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mixbit/io/hf_checkpoint.hpp"
#include "support/checkpoint_host.hpp"
#include "support/temporary_folder.hpp"

namespace mixbit::test {

/// Values without a pattern in the rows' or columns' numbers, some of them exact ties of no format.
inline plain_tensor make_weight(std::initializer_list<std::int64_t> shape, int seed = 1) {
  plain_tensor w{shape};
  for (std::size_t i = 0; i < w.values.size(); ++i)
    w.values[i] = std::sin(static_cast<float>((i + 1) * (i + 7) % 1009 + 31 * seed)) * static_cast<float>(1 + i % 5);
  return w;
}

inline quantizer_attribute_config blocks(bit_spec bits, std::vector<axis_block> axes) {
  quantizer_attribute_config a;
  a.num_bits = std::move(bits);
  a.block_sizes = block_config{std::move(axes)};
  return a;
}

inline quantizer_attribute_config per_axis(bit_spec bits, int axis) {
  quantizer_attribute_config a;
  a.num_bits = std::move(bits);
  a.axis = axis;
  return a;
}

inline quantizer_attribute_config whole(bit_spec bits) {
  quantizer_attribute_config a;
  a.num_bits = std::move(bits);
  return a;
}

/// A source checkpoint, a host over its modules, and somewhere to export to.
struct export_bench {
  temporary_folder folder;
  checkpoint_host host;
  json_document config = {
      {"architectures", {"LlamaForCausalLM", "Other"}}, {"use_cache", true}, {"eos_token_id", nullptr}};
  std::vector<std::pair<std::string, plain_tensor>> tensors;
  std::unique_ptr<mixbit::model<cpu_backend>> m;

  std::filesystem::path source() const { return folder / "source"; }
  std::filesystem::path out() const { return folder / "out"; }

  /// A module of the source and of the host.
  void add(std::string const& name, plain_tensor const& weight, std::string class_name = "nn.Linear",
           site_layout layout = layouts::linear) {
    tensors.emplace_back(name + ".weight", weight);
    host.add(name, weight, std::move(class_name), layout);
  }
  void write_source() const {
    std::filesystem::create_directories(source());
    std::vector<named_tensor> named;
    for (auto const& [name, t] : tensors) named.push_back({name, {t.shape, t.values.data()}});
    write_safetensors(source() / "model.safetensors", named, {{"format", "pt"}});
    write_json_file(source() / "config.json", config);
  }
  /// Writes the source and quantizes as `configure` says.
  void quantize(std::function<void(quantize_config&)> const& configure, forward_loop const& loop = {}) {
    write_source();
    m = std::make_unique<mixbit::model<cpu_backend>>(host);
    auto what = nothing_on();
    configure(what);
    mixbit::quantize(*m, what, loop);
  }
  std::vector<std::string> run(hf_export_options options = {}) {
    return export_hf_checkpoint(*m, source(), out(), options);
  }
  safetensors_file file() const { return safetensors_file::open(out() / "model.safetensors"); }
  json_document json(char const* name) const { return read_json_file(out() / name); }
};

inline bool mentions(std::vector<std::string> const& notes, std::string_view what) {
  return std::any_of(notes.begin(), notes.end(), [&](auto const& n) { return n.find(what) != n.npos; });
}

}  // namespace mixbit::test
