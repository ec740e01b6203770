// Written by edgeopt app; edgeopt app --update writes it anew.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace com::acme::vision::detail {

// An input as it lies in memory.
struct Input {
  const void* data;
  size_t bytes;
  std::vector<int32_t> shape;
};

// The loaded model file; litert_runtime.cpp has the one implementation.
class Runtime {
 public:
  // Throws std::runtime_error when the file can't be loaded.
  Runtime(const std::string& model_file, int threads);
  ~Runtime();
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  // Runs the model once: inputs in the model's order, and the bytes of each output in the model's order.
  // Throws std::runtime_error when the runtime refuses.
  std::vector<std::vector<char>> run(const std::vector<Input>& inputs);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace com::acme::vision::detail
