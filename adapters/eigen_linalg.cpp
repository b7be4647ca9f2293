// The one file that compiles eigen_linalg for this project's own programs.
#include "mixbit/adapters/eigen_linalg_impl.hpp"
