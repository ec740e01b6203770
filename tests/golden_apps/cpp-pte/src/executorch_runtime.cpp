// Written by edgeopt app; edgeopt app --update writes it anew.
#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>

#include <stdexcept>
#include <utility>

#include "runtime.h"

// The package exports the thread pool without its header: the parts used are declared here.
namespace executorch::extension::threadpool {
class ThreadPool {
 public:
  bool _unsafe_reset_threadpool(uint32_t threads);
};
ThreadPool* get_threadpool();
}  // namespace executorch::extension::threadpool

namespace com::acme::vision::detail {
namespace {

using executorch::extension::Module;
using executorch::extension::TensorPtr;
using executorch::runtime::Error;
using executorch::runtime::EValue;

void check(Error error, const std::string& doing) {
  if (error != Error::Ok) {
    throw std::runtime_error(doing + " failed with ExecuTorch error " + std::to_string(static_cast<int>(error)));
  }
}

}  // namespace

struct Runtime::State {
  explicit State(const std::string& file) : module(file, Module::LoadMode::Mmap) {}
  Module module;
};

Runtime::Runtime(const std::string& model_file, int threads) {
  // Before any program is loaded: XNNPACK keeps the pool it sees then. The pool belongs to the whole process.
  if (auto* pool = executorch::extension::threadpool::get_threadpool()) {
    pool->_unsafe_reset_threadpool(static_cast<uint32_t>(threads));
  }
  state_ = std::make_unique<State>(model_file);
  check(state_->module.load_method("forward"), "loading " + model_file);
}

Runtime::~Runtime() = default;

std::vector<std::vector<char>> Runtime::run(const std::vector<Input>& inputs) {
  const auto meta = state_->module.method_meta("forward");
  check(meta.error(), "reading the model");
  if (meta->num_inputs() != inputs.size()) throw std::runtime_error("the model takes another number of inputs");
  std::vector<TensorPtr> tensors;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const auto info = meta->input_tensor_meta(i);
    check(info.error(), "reading input " + std::to_string(i));
    std::vector<executorch::aten::SizesType> sizes(inputs[i].shape.begin(), inputs[i].shape.end());
    // The runtime reads its inputs and doesn't change them.
    tensors.push_back(executorch::extension::from_blob(const_cast<void*>(inputs[i].data), std::move(sizes),
                                                       info->scalar_type()));
  }
  const std::vector<EValue> arguments(tensors.begin(), tensors.end());
  const auto result = state_->module.execute("forward", arguments);
  check(result.error(), "running the model");
  std::vector<std::vector<char>> outputs;
  for (const EValue& value : *result) {
    const auto& tensor = value.toTensor();
    const char* data = static_cast<const char*>(tensor.const_data_ptr());
    outputs.emplace_back(data, data + tensor.nbytes());
  }
  return outputs;
}

}  // namespace com::acme::vision::detail
