// Written by edgeopt app from the bundle's manifest; edgeopt app --update writes it anew.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime.h"

namespace com::acme::vision {

// Tiny Net: fp32 for executorch 1.5.1, made for Google Pixel 7.
//
// One object runs in one thread at a time.
class TinyNet {
 public:
  // The fast cores of the device, at most four.
  static constexpr int kDefaultThreads = 4;

  // What the model computed, each flattened in the order of its axes.
  struct Outputs {
    std::vector<float> logits;  // logits: float32[1, 3]
    std::vector<int64_t> mask;  // mask: int64[1, 2]
  };

  // Loads `model_file` after checking that it is the file that was exported.
  // Throws std::runtime_error when it isn't, or the runtime refuses it.
  explicit TinyNet(const std::string& model_file, int threads = kDefaultThreads);

  // Runs the model. Throws std::invalid_argument for an input of another size, std::runtime_error when the
  // runtime fails.
  //   image: image, float32[1, 3, 8, 8], flattened
  Outputs run(const std::vector<float>& image);

 private:
  detail::Runtime runtime_;
};

}  // namespace com::acme::vision
