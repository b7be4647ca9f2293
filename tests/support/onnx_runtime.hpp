// onnxruntime as an oracle: runs an ONNX file that the onnx package's checker has accepted.
#pragma once

#include <string>
#include <vector>

#include "mixbit/io/npz.hpp"
#include "support/python.hpp"

namespace mixbit::test {

/// The outputs for one input, with the runtime's graph optimisations off under their names, with them on under
/// "NAME/on".
inline npz_file run_onnx(std::filesystem::path const& file, named_tensor const& input) {
  temporary_folder const folder;
  write_npz(folder / "in.npz", std::vector<named_tensor>{input});
  std::string const said = run_python(R"(
import sys, numpy as np, onnx, onnxruntime as ort
onnx.checker.check_model(onnx.load(sys.argv[1]), full_check=True)
out = {}
levels = ort.GraphOptimizationLevel
for level, suffix in (levels.ORT_DISABLE_ALL, ""), (levels.ORT_ENABLE_ALL, "/on"):
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.log_severity_level = 3
    session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
    results = session.run(None, dict(np.load(sys.argv[2])))
    out.update({o.name + suffix: r for o, r in zip(session.get_outputs(), results)})
np.savez(sys.argv[3], **out)
)", {file, folder / "in.npz", folder / "out.npz"});
  if (!said.empty()) throw std::runtime_error{said};
  return npz_file::open(folder / "out.npz");  // stays mapped
}

inline bool skipped_without_onnxruntime(std::string const& what) {
  return skipped_without_python(what, {"onnx", "onnxruntime"});
}

}  // namespace mixbit::test
