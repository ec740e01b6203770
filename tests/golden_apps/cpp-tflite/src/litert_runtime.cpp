// Written by edgeopt app; edgeopt app --update writes it anew.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include "litert_c_api.h"
#include "runtime.h"

extern "C" {
LiteRtStatus LiteRtGetSignatureInputName(LiteRtSignature signature, size_t index, const char** out);
LiteRtStatus LiteRtGetSignatureOutputName(LiteRtSignature signature, size_t index, const char** out);
void LiteRtDestroyTensorBuffer(LiteRtTensorBuffer buffer);
void LiteRtDestroyCompiledModel(LiteRtCompiledModel model);
void LiteRtDestroyOptions(LiteRtOptions options);
void LiteRtDestroyModel(LiteRtModel model);
void LiteRtDestroyEnvironment(LiteRtEnvironment environment);
}

namespace com::acme::vision::detail {
namespace {

const std::vector<std::string> kInputs = {
    "image",
};
const std::vector<std::string> kOutputs = {
    "logits",
    "mask",
};

void check(LiteRtStatus status, const std::string& doing) {
  if (status != 0) throw std::runtime_error(doing + " failed with LiteRT status " + std::to_string(status));
}

struct Buffers {
  std::vector<LiteRtTensorBuffer> list;
  ~Buffers() {
    for (LiteRtTensorBuffer buffer : list) LiteRtDestroyTensorBuffer(buffer);
  }
};

// Where each of the signature's tensors stands in `wanted`: the file keeps the names, not the order.
template <typename NameOf>
std::vector<size_t> order(const std::vector<std::string>& wanted, NameOf name_of) {
  std::vector<size_t> places;
  for (size_t i = 0; i < wanted.size(); ++i) {
    const char* name = nullptr;
    check(name_of(i, &name), "reading a tensor's name");
    const auto found = std::find(wanted.begin(), wanted.end(), name);
    if (found == wanted.end()) throw std::runtime_error(std::string("the model has no tensor ") + name);
    places.push_back(static_cast<size_t>(found - wanted.begin()));
  }
  return places;
}

}  // namespace

struct Runtime::State {
  LiteRtEnvironment environment = nullptr;
  LiteRtModel model = nullptr;
  LiteRtOptions options = nullptr;
  LiteRtCompiledModel compiled = nullptr;
  LiteRtSignature signature = nullptr;
  std::vector<size_t> inputs, outputs;

  ~State() {
    if (compiled != nullptr) LiteRtDestroyCompiledModel(compiled);
    if (options != nullptr) LiteRtDestroyOptions(options);
    if (model != nullptr) LiteRtDestroyModel(model);
    if (environment != nullptr) LiteRtDestroyEnvironment(environment);
  }

  LiteRtTensorBuffer buffer(LiteRtTensor tensor, const int32_t* sizes, size_t rank,
                            LiteRtTensorBufferRequirements needs) {
    LiteRtRankedTensorType type{};
    check(LiteRtGetRankedTensorType(tensor, &type), "reading a tensor's shape");
    type.layout.rank = static_cast<unsigned>(rank);
    std::copy(sizes, sizes + rank, type.layout.dimensions);
    LiteRtTensorBuffer made = nullptr;
    check(LiteRtCreateManagedTensorBufferFromRequirements(environment, &type, needs, &made), "making a buffer");
    return made;
  }

  void resize(LiteRtTensor tensor, size_t index, const std::vector<int32_t>& shape) {
    LiteRtRankedTensorType type{};
    check(LiteRtGetRankedTensorType(tensor, &type), "reading an input's shape");
    if (std::equal(shape.begin(), shape.end(), type.layout.dimensions, type.layout.dimensions + type.layout.rank)) {
      return;
    }
    check(LiteRtCompiledModelResizeInputTensor(compiled, 0, index, shape.data(), shape.size()), "resizing an input");
  }
};

Runtime::Runtime(const std::string& model_file, int threads) : state_(std::make_unique<State>()) {
  State& s = *state_;
  check(LiteRtCreateEnvironment(0, nullptr, &s.environment), "starting LiteRT");
  check(LiteRtCreateModelFromFile(s.environment, model_file.c_str(), &s.model), "loading " + model_file);
  check(LiteRtCreateOptions(&s.options), "making options");
  check(LiteRtSetOptionsHardwareAccelerators(s.options, kAcceleratorCpu), "choosing the CPU");
  const std::string toml = "num_threads = " + std::to_string(threads) + "\n";
  LiteRtOpaqueOptions opaque = nullptr;
  check(LiteRtCreateOpaqueOptions("xnnpack", strdup(toml.c_str()), std::free, &opaque), "making options");
  check(LiteRtAddOpaqueOptions(s.options, opaque), "setting the number of threads");
  check(LiteRtCreateCompiledModel(s.environment, s.model, s.options, &s.compiled), "compiling " + model_file);
  check(LiteRtGetModelSignature(s.model, 0, &s.signature), "reading the signature");
  s.inputs = order(kInputs, [&](size_t i, const char** name) {
    return LiteRtGetSignatureInputName(s.signature, i, name);
  });
  s.outputs = order(kOutputs, [&](size_t i, const char** name) {
    return LiteRtGetSignatureOutputName(s.signature, i, name);
  });
}

Runtime::~Runtime() = default;

std::vector<std::vector<char>> Runtime::run(const std::vector<Input>& inputs) {
  State& s = *state_;
  Buffers in, out;
  for (size_t i = 0; i < s.inputs.size(); ++i) {
    const Input& input = inputs[s.inputs[i]];
    LiteRtTensor tensor = nullptr;
    check(LiteRtGetSignatureInputTensorByIndex(s.signature, i, &tensor), "reading an input");
    s.resize(tensor, i, input.shape);
    LiteRtTensorBufferRequirements needs = nullptr;
    check(LiteRtGetCompiledModelInputBufferRequirements(s.compiled, 0, i, &needs), "sizing an input");
    in.list.push_back(s.buffer(tensor, input.shape.data(), input.shape.size(), needs));
    size_t size = 0;
    check(LiteRtGetTensorBufferPackedSize(in.list.back(), &size), "sizing an input");
    if (size != input.bytes) throw std::runtime_error("an input has another size than the model takes");
    void* memory = nullptr;
    check(LiteRtLockTensorBuffer(in.list.back(), &memory, kLockWrite), "locking an input");
    std::memcpy(memory, input.data, size);
    check(LiteRtUnlockTensorBuffer(in.list.back()), "unlocking an input");
  }
  std::vector<LiteRtLayout> layouts(s.outputs.size());
  check(LiteRtGetCompiledModelOutputTensorLayouts(s.compiled, 0, layouts.size(), layouts.data(), true),
        "shaping the outputs");
  for (size_t i = 0; i < s.outputs.size(); ++i) {
    LiteRtTensor tensor = nullptr;
    check(LiteRtGetSignatureOutputTensorByIndex(s.signature, i, &tensor), "reading an output");
    LiteRtTensorBufferRequirements needs = nullptr;
    check(LiteRtGetCompiledModelOutputBufferRequirements(s.compiled, 0, i, &needs), "sizing an output");
    out.list.push_back(s.buffer(tensor, layouts[i].dimensions, layouts[i].rank, needs));
  }
  check(LiteRtRunCompiledModel(s.compiled, 0, in.list.size(), in.list.data(), out.list.size(), out.list.data()),
        "running the model");
  std::vector<std::vector<char>> outputs(s.outputs.size());
  for (size_t i = 0; i < s.outputs.size(); ++i) {
    size_t size = 0;
    void* memory = nullptr;
    check(LiteRtGetTensorBufferPackedSize(out.list[i], &size), "sizing an output");
    check(LiteRtLockTensorBuffer(out.list[i], &memory, kLockRead), "locking an output");
    const char* data = static_cast<const char*>(memory);
    outputs[s.outputs[i]].assign(data, data + size);
    check(LiteRtUnlockTensorBuffer(out.list[i]), "unlocking an output");
  }
  return outputs;
}

}  // namespace com::acme::vision::detail
