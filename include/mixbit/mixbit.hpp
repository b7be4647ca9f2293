// mixbit: quantization with automatic per-layer bit selection, header-only. This includes the library but for tensor
// adapters (mixbit/adapters/...), JSON and files (.../json.hpp, mixbit/io/...) and the backends themselves. Conformance
// (mixbit/validate/...) is left out too: what quantizes a model never needs it, and its search over conventions would
// add to the compile time of everyone who includes this.
// So is the thread pool (mixbit/core/thread_pool.hpp), for those who bring their own; the CPU backends include it.
// So is what only some do to a calibrated model: mixbit/model/postprocess.hpp (amaxes changed, changes taken back),
// mixbit/model/scale_training.hpp (learned scales) and mixbit/model/compress.hpp (weights as codes in memory).
#pragma once

#include "mixbit/autoquant/apply_plan.hpp"
#include "mixbit/autoquant/experts.hpp"
#include "mixbit/autoquant/plan_config.hpp"
#include "mixbit/autoquant/search.hpp"
#include "mixbit/config/presets.hpp"
#include "mixbit/model/control.hpp"
#include "mixbit/model/fold_scales.hpp"
#include "mixbit/model/shared_state.hpp"
#include "mixbit/model/summary.hpp"
#include "mixbit/report/markdown.hpp"
