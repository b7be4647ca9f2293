// How a config says which calibrator a quantizer has: in C++, in JSON, and what is refused.
#include "mixbit/config/calibrator_config.hpp"

#include <doctest/doctest.h>

#include "mixbit/config/attribute_json.hpp"
#include "support/error_text.hpp"

using namespace mixbit;

namespace {

quantizer_attribute_config read(char const* calibrator) {
  return attributes_from_json(config_json{{"calibrator", config_json::parse(calibrator)}}, "w");
}
std::string refused(error_id id, char const* calibrator) {
  return test::error_text(id, [&] { read(calibrator); });
}
std::string refused(error_id id, calibrator_config const& c) {
  return test::error_text(id, [&] { c.validate("w.calibrator"); });
}

}  // namespace

TEST_CASE("calibrator: a name or an object in JSON, written back as it means, and equal to what C++ says") {
  CHECK(read(R"("max")").calibrator == calibrator_config{});
  CHECK(read(R"({"name": "max"})").calibrator.is_max());
  CHECK(read(R"({"name": "histogram"})") == quantizer_attribute_config{.calibrator = "histogram"});
  calibrator_config const percentile{"histogram", {{"method", "percentile"}, {"percentile", 99.5}}};
  CHECK(read(R"({"percentile": 99.5, "name": "histogram", "method": "percentile"})").calibrator == percentile);
  CHECK_FALSE(read(R"({"percentile": 99, "name": "histogram", "method": "percentile"})").calibrator == percentile);
  CHECK(read(R"({"name": "histogram", "bins": null})").calibrator == calibrator_config{"histogram"});
  quantizer_attribute_config const several[] = {
      {.calibrator = percentile},
      {.calibrator = {"histogram", {{"bins", 4096}}}},
      {.calibrator = {"nvfp4_act_headroom", {{"rho", 1024.0}}}},
      {.calibrator = {"mine", {{"factor", 2.5}, {"on", true}, {"how", "well"}}}},
      {.calibrator = "mine"}};
  for (auto const& a : several)
    for (json_form const form : {json_form::sparse, json_form::normal})
      CHECK(attributes_from_json(attributes_to_json(a, form)) == a);
  CHECK(attributes_to_json({.calibrator = "histogram"})["calibrator"] == "histogram");
  CHECK(attributes_to_json({.calibrator = "mine"})["calibrator"] == config_json{{"name", "mine"}});
}

TEST_CASE("calibrator: parameters have the defaults of the table, or the caller's for a calibrator of their own") {
  calibrator_config const plain = "histogram", own{"mine", {{"factor", 3}, {"how", "well"}}};
  CHECK(plain.method() == "entropy");
  CHECK(plain.number("bins") == 2048);
  CHECK(plain.number("percentile") == 99.99);
  calibrator_config const headroom = "nvfp4_act_headroom";
  CHECK(headroom.number("rho") == 16384);
  CHECK(headroom.number("anchor") == 1);
  CHECK(headroom.number("upper") == 99.99);
  CHECK(own.number("factor", 1.0) == 3);
  CHECK(own.number("bias", 1.5) == 1.5);
  CHECK(own.text("how", "badly") == "well");
  CHECK(own.text("where", "here") == "here");
  CHECK_NOTHROW(own.validate("w"));
  CHECK_NOTHROW(own.allow({"how", "factor"}, "w"));
  CHECK(test::says(test::error_text(error_id::config_unknown_field, [&] { own.allow({"factors"}, "w"); }), "w: ",
                   "'mine' has no parameter 'factor'", "close: factors"));
  CHECK(test::says(test::error_text(error_id::config_value, [&] { own.number("how"); }), "'how' must be a number"));
  CHECK(test::says(test::error_text(error_id::config_value, [&] { own.text("factor"); }), "'factor' must be a text"));
}

TEST_CASE("calibrator: what is refused names the field and the value") {
  auto const value = error_id::config_value, unknown = error_id::config_unknown_field;
  auto const conflict = error_id::config_conflict;
  CHECK(test::says(refused(value, R"("entropy")"), "w.calibrator: 'entropy' is a method of the histogram"));
  CHECK(test::says(refused(value, R"("histogramm")"), "w.calibrator: 'histogramm'", "close: histogram", "{\"name\""));
  CHECK(test::says(refused(value, "7"), "w.calibrator: must be a name or an object", "7"));
  CHECK(test::says(refused(value, R"({"method": "mse"})"), "w.calibrator: ", "\"name\""));
  CHECK(test::says(refused(value, R"({"name": "histogram", "method": "best"})"), "w.calibrator.method: 'best'"));
  CHECK(test::says(refused(value, R"({"name": "histogram", "method": 3})"), "w.calibrator.method", "a text"));
  CHECK(test::says(refused(value, R"({"name": "histogram", "bins": 127})"), "w.calibrator.bins: 127"));
  CHECK(test::says(refused(value, R"({"name": "histogram", "bins": 1048577})"), "w.calibrator.bins: 1.04858e+06"));
  CHECK(test::says(refused(value, R"({"name": "histogram", "bins": 2048.5})"), "w.calibrator.bins", "an integer"));
  CHECK(test::says(refused(unknown, R"({"name": "histogram", "bin": 2048})"), "no parameter 'bin'", "close: bins"));
  CHECK(test::says(refused(unknown, R"({"name": "max", "bins": 2048})"), "'max' has no parameter 'bins'"));
  for (double const p : {0.0, -1.0, 100.5})
    CHECK(test::says(refused(value, {"histogram", {{"method", "percentile"}, {"percentile", p}}}), "percentile", "(0"));
  CHECK(test::says(refused(conflict, {"histogram", {{"percentile", 99.0}}}), "'percentile', not 'entropy'"));
  CHECK(test::says(refused(conflict, {"histogram", {{"method", "mse"}, {"bins", 128}}}), "w.calibrator.bins"));
  CHECK(test::says(refused(conflict, {"mine", {{"a", 1}, {"a", 2}}}), "w.calibrator.a: is given twice"));
  CHECK(test::says(refused(value, {"nvfp4_act_headroom", {{"rho", 28672.0}}}), "w.calibrator.rho: 28672"));
  CHECK(test::says(refused(value, {"nvfp4_act_headroom", {{"anchor", 0.0}}}), "w.calibrator.anchor: 0"));
  CHECK(test::says(refused(value, {"nvfp4_act_headroom", {{"upper", 101.0}}}), "w.calibrator.upper: 101"));
  CHECK(test::says(refused(value, calibrator_config{""}), "w.calibrator.name: is empty"));
}
