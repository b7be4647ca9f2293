#include "mixbit/io/npy.hpp"

#include "fuzz/target.hpp"

namespace {

using namespace mixbit;

fuzz::target const npy{"npy", fuzz::kind::raw, [](fuzz::bytes input) {
  auto const file = npy_file::from_bytes(input, "it");
  detail::npy_header_of(file.tensor(), "it");
}};

}  // namespace
