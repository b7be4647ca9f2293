// Runs the target that the program is called by, and changes inputs as its reader's format asks. With MIXBIT_FUZZ_SHOW
// in the environment it prints what the reader says of inputs that it refuses.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "fuzz/target.hpp"
#include "mixbit/io/json.hpp"

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t most);

namespace {

using namespace mixbit;

fuzz::target const* called = nullptr;

/// Every value of a document, the root first.
void collect(json_document& j, std::vector<json_document*>& all) {
  all.push_back(&j);
  for (auto& value : j) {
    if (!j.is_structured()) return;
    collect(value, all);
  }
}

/// Changes one value: to one of another kind, to another value of the document, by a member more or less.
class json_mutation {
 public:
  explicit json_mutation(unsigned seed) : random_{seed} {}

  void change(json_document& root) {
    std::vector<json_document*> all;
    collect(root, all);
    json_document& at = *all[pick(all.size())];
    json_document const other = *all[pick(all.size())];
    switch (pick(6)) {
      case 0: at = value(); break;
      case 1: at = other; break;
      case 2: leave_out(at); break;
      case 3: add(at, pick(2) == 0 ? other : value()); break;
      case 4: rename(at); break;
      default: nudge(at);
    }
  }

 private:
  std::size_t pick(std::size_t count) { return random_() % count; }

  json_document value() {
    static json_document const values = json_document::parse(
        R"([null, true, false, 0, 1, -1, 2, 3, 8, 16, 32, 128, 255, 2147483647, -2147483648, 4294967296,
            9223372036854775807, -9223372036854775808, 18446744073709551615, 0.5, -0.0, 1e-320, 1e308, -1e308,
            "", "NONE", "*", "a\nb", [], {}, [[]], [0, 0], [1, 1], [3, 4], {"": 0}, [0, 1, 2, 3, 4, 5, 6, 7, 8]])");
    return values[pick(values.size())];
  }
  void leave_out(json_document& j) {
    if (j.is_structured() && !j.empty()) j.erase(std::next(j.begin(), static_cast<std::ptrdiff_t>(pick(j.size()))));
  }
  void add(json_document& j, json_document what) {
    if (j.is_array()) j.push_back(std::move(what));
    else if (j.is_object()) j[j.empty() ? "x" : pick(2) == 0 ? "new" : key(j)] = std::move(what);
  }
  void rename(json_document& j) {
    if (!j.is_object() || j.empty()) return;
    std::string const from = key(j);
    json_document moved = std::move(j[from]);
    j.erase(from);
    j[changed(from)] = std::move(moved);
  }
  void nudge(json_document& j) {
    if (j.is_string()) j = changed(j.get<std::string>());
    else if (j.is_number_unsigned()) j = j.get<std::uint64_t>() + pick(5) - 2;  // wraps
    else if (j.is_number_float()) j = j.get<double>() * (pick(2) == 0 ? -1.0 : 1.5);
  }
  std::string key(json_document const& j) {
    return std::next(j.begin(), static_cast<std::ptrdiff_t>(pick(j.size()))).key();
  }
  std::string changed(std::string text) {
    if (!text.empty() && pick(2) == 0) text.erase(pick(text.size()), 1);
    else text.insert(pick(text.size() + 1), 1, static_cast<char>(' ' + pick(95)));
    return text;
  }

  std::minstd_rand random_;
};

std::string mutated(std::string_view text, unsigned seed) {
  try {
    auto document = parse_json_strict(text, "it", error_id::file_format);
    json_mutation mutation{seed};
    for (unsigned i = 0; i <= seed % 3; ++i) mutation.change(document);
    return document.dump(-1, ' ', false, json_document::error_handler_t::replace);
  } catch (error const&) {
    return {};
  }
}

/// The header changed, with the length in front of it set; empty where there is none.
std::string mutated_file(std::string_view file, unsigned seed) {
  std::uint64_t length = 0;
  if (file.size() < sizeof length) return {};
  std::memcpy(&length, file.data(), sizeof length);
  if (length > file.size() - sizeof length) return {};
  auto const header = mutated(file.substr(sizeof length, length), seed);
  if (header.empty()) return {};
  std::uint64_t const now = header.size();
  std::string result(sizeof now, '\0');
  std::memcpy(result.data(), &now, sizeof now);
  return result.append(header).append(file.substr(sizeof length + length));
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char*** arguments) {
  std::string_view name = (*arguments)[0];
  name.remove_prefix(name.rfind('/') + 1);  // npos + 1 is 0
  for (auto const* t = fuzz::target::first(); t != nullptr; t = t->next)
    if (t->name == name) called = t;
  if (called != nullptr) return 0;
  for (auto const* t = fuzz::target::first(); t != nullptr; t = t->next)
    std::printf("%.*s\n", static_cast<int>(t->name.size()), t->name.data());
  std::exit(name == "list" ? 0 : 2);
}

bool fuzz::takes(fuzz::bytes input) {
  try {
    called->read(input);
    return true;
  } catch (error const& e) {  // what else is thrown, libFuzzer reports
    if (e.message().empty() || std::string_view{e.what()}.find('\n') != std::string_view::npos) std::abort();
    static bool const shown = std::getenv("MIXBIT_FUZZ_SHOW") != nullptr;
    if (shown) std::printf("refused: %s\n", e.what());
    return false;
  }
}

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  (void)fuzz::takes(std::as_bytes(std::span{data, size}));
  return 0;
}

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t most, unsigned seed) {
  std::string_view const input{reinterpret_cast<char const*>(data), size};
  std::string made;
  if (seed % 4 != 0 && called->inputs == fuzz::kind::json) made = mutated(input, seed / 4);
  if (seed % 4 != 0 && called->inputs == fuzz::kind::safetensors) made = mutated_file(input, seed / 4);
  if (made.empty() || made.size() > most) return LLVMFuzzerMutate(data, size, most);
  std::memcpy(data, made.data(), made.size());
  return made.size();
}
