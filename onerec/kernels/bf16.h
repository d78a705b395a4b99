// A bfloat16: the upper half of a float.
#pragma once

#include <cstdint>

namespace onerec {

struct Bf16 {
  uint16_t bits;
};

}  // namespace onerec
