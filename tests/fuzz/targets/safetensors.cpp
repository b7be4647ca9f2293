#include "mixbit/io/safetensors.hpp"

#include "fuzz/target.hpp"
#include "mixbit/io/safetensors_head.hpp"

namespace {

using namespace mixbit;

/// What is read can be written again.
fuzz::target const safetensors{"safetensors", fuzz::kind::safetensors, [](fuzz::bytes input) {
  auto const file = safetensors_file::from_bytes(input, "it");
  std::vector<named_geometry> all;
  for (auto const& name : file.names()) {
    all.push_back({name, file.at(name)});
    if (is_compute(file.at(name).type)) file.read_as_float(name);
  }
  safetensors_head("it", all, file.metadata());
}};

}  // namespace
