#include "mixbit/io/npz.hpp"

#include "fuzz/target.hpp"

namespace {

using namespace mixbit;

fuzz::target const npz{"npz", fuzz::kind::raw, [](fuzz::bytes input) {
  auto const file = npz_file::from_bytes(input, "it");
  for (auto const& name : file.names()) file.read(name);
}};

/// Members are read up to the end, whatever the checksum says of them.
fuzz::target const inflate{"inflate", fuzz::kind::raw, [](fuzz::bytes input) {
  auto const refuse = [](char const* why) { fail(error_id::file_format, why); };
  for (std::size_t const size : {0u, 1u, 100u, 4096u, 65536u}) {
    try {
      detail::inflater{input, refuse}.inflate(size);
    } catch (error const&) {
    }
  }
}};

}  // namespace
