// Runs a LiteRT model (.tflite) and reports in the line common.h describes.
//
// The ai-edge-litert wheel carries libLiteRt.so without headers. The functions used are declared in
// litert_c_api.h, which the build guards with the wheel's version.
#include "litert_c_api.h"

#include "common.h"

namespace {

void check(LiteRtStatus status, const std::string& doing) {
  if (status != 0) edgeopt::fail(doing + " failed with LiteRT status " + std::to_string(status));
}

const char* dtype_name(int element) {
  switch (element) {
    case 1: return "float32";
    case 2: return "int32";
    case 3: return "uint8";
    case 4: return "int64";
    case 6: return "bool";
    case 7: return "int16";
    case 9: return "int8";
    case 10: return "float16";
    case 11: return "float64";
    default: edgeopt::fail("a tensor has an element type this runner does not know");
  }
}

void free_text(void* text) { std::free(text); }

void add_options(LiteRtOptions options, const char* identifier, const std::string& toml) {
  LiteRtOpaqueOptions opaque = nullptr;
  check(LiteRtCreateOpaqueOptions(identifier, strdup(toml.c_str()), free_text, &opaque), "making options");
  check(LiteRtAddOpaqueOptions(options, opaque), "setting options");
}

struct Side {
  std::vector<LiteRtTensorBuffer> buffers;
  std::vector<LiteRtRankedTensorType> types;
};

LiteRtTensorBuffer make_buffer(LiteRtEnvironment env, const LiteRtRankedTensorType& type,
                               LiteRtTensorBufferRequirements needs) {
  LiteRtTensorBuffer buffer = nullptr;
  check(LiteRtCreateManagedTensorBufferFromRequirements(env, &type, needs, &buffer), "making a buffer");
  return buffer;
}

std::vector<int> shape_of(const LiteRtRankedTensorType& type) {
  return {type.layout.dimensions, type.layout.dimensions + type.layout.rank};
}

size_t fill(LiteRtTensorBuffer buffer, const edgeopt::Arguments& a, size_t index, const char* dtype) {
  size_t size = 0;
  check(LiteRtGetTensorBufferPackedSize(buffer, &size), "sizing an input");
  const std::vector<char> bytes = edgeopt::read_input(a, index, dtype, size);
  void* memory = nullptr;
  check(LiteRtLockTensorBuffer(buffer, &memory, kLockWrite), "locking an input");
  std::memcpy(memory, bytes.data(), size);
  check(LiteRtUnlockTensorBuffer(buffer), "unlocking an input");
  return size;
}

Side make_inputs(const edgeopt::Arguments& a, LiteRtEnvironment env, LiteRtSignature signature,
                 LiteRtCompiledModel model, edgeopt::Report& report) {
  size_t count = 0;
  check(LiteRtGetNumSignatureInputs(signature, &count), "counting inputs");
  if (!a.describe && count != a.inputs.size()) {
    edgeopt::fail("the model takes " + std::to_string(count) + " inputs, " +
                  std::to_string(a.inputs.size()) + " were given");
  }
  Side side;
  for (size_t i = 0; i < count; ++i) {
    LiteRtTensor tensor = nullptr;
    check(LiteRtGetSignatureInputTensorByIndex(signature, i, &tensor), "reading an input");
    LiteRtRankedTensorType type{};
    check(LiteRtGetRankedTensorType(tensor, &type), "reading an input's shape");
    if (a.describe) {
      report.inputs.push_back({"", dtype_name(type.element_type), shape_of(type), 0});
      continue;
    }
    if (!a.shapes[i].empty() && a.shapes[i] != shape_of(type)) {
      check(LiteRtCompiledModelResizeInputTensor(model, 0, i, a.shapes[i].data(), a.shapes[i].size()),
            "resizing input " + std::to_string(i));
      type.layout.rank = static_cast<unsigned>(a.shapes[i].size());
      std::copy(a.shapes[i].begin(), a.shapes[i].end(), type.layout.dimensions);
    }
    LiteRtTensorBufferRequirements needs = nullptr;
    check(LiteRtGetCompiledModelInputBufferRequirements(model, 0, i, &needs), "sizing an input");
    side.buffers.push_back(make_buffer(env, type, needs));
    side.types.push_back(type);
    const size_t bytes = fill(side.buffers.back(), a, i, dtype_name(type.element_type));
    report.inputs.push_back({a.inputs[i], dtype_name(type.element_type), shape_of(type), bytes});
  }
  return side;
}

Side make_outputs(LiteRtEnvironment env, LiteRtSignature signature, LiteRtCompiledModel model) {
  size_t count = 0;
  check(LiteRtGetNumSignatureOutputs(signature, &count), "counting outputs");
  std::vector<LiteRtLayout> layouts(count);
  check(LiteRtGetCompiledModelOutputTensorLayouts(model, 0, count, layouts.data(), true), "shaping outputs");
  Side side;
  for (size_t i = 0; i < count; ++i) {
    LiteRtTensor tensor = nullptr;
    check(LiteRtGetSignatureOutputTensorByIndex(signature, i, &tensor), "reading an output");
    LiteRtRankedTensorType type{};
    check(LiteRtGetRankedTensorType(tensor, &type), "reading an output's shape");
    type.layout = layouts[i];
    LiteRtTensorBufferRequirements needs = nullptr;
    check(LiteRtGetCompiledModelOutputBufferRequirements(model, 0, i, &needs), "sizing an output");
    side.buffers.push_back(make_buffer(env, type, needs));
    side.types.push_back(type);
  }
  return side;
}

void write_outputs(const edgeopt::Arguments& a, const Side& side, edgeopt::Report& report) {
  for (size_t i = 0; i < side.buffers.size(); ++i) {
    const std::string file = a.output_prefix.empty() ? "" : a.output_prefix + std::to_string(i) + ".bin";
    size_t bytes = 0;
    void* memory = nullptr;
    check(LiteRtGetTensorBufferPackedSize(side.buffers[i], &bytes), "sizing an output");
    check(LiteRtLockTensorBuffer(side.buffers[i], &memory, kLockRead), "locking an output");
    if (!file.empty()) edgeopt::write_file(file, memory, bytes);
    check(LiteRtUnlockTensorBuffer(side.buffers[i]), "unlocking an output");
    report.outputs.push_back({file, dtype_name(side.types[i].element_type), shape_of(side.types[i]), bytes});
  }
}

void write_profile(const edgeopt::Arguments& a, LiteRtCompiledModel compiled, LiteRtProfiler profiler,
                   edgeopt::Report& report) {
  const char* summary = nullptr;
  if (LiteRtGetProfileSummary(profiler, compiled, &summary) != 0 || summary == nullptr) return;
  edgeopt::write_file(a.profile, summary, std::strlen(summary));
  std::free(const_cast<char*>(summary));  // the caller owns the text
  report.profile = a.profile;
}

}  // namespace

int main(int argc, char** argv) {
  const edgeopt::Arguments a = edgeopt::parse(argc, argv);
  edgeopt::Report report;
  report.runtime = "litert";
  report.threads = a.threads;

  const double begin = edgeopt::now_ms();
  LiteRtEnvironment env = nullptr;
  LiteRtModel model = nullptr;
  LiteRtOptions options = nullptr;
  LiteRtCompiledModel compiled = nullptr;
  LiteRtSignature signature = nullptr;
  check(LiteRtCreateEnvironment(0, nullptr, &env), "starting LiteRT");
  check(LiteRtCreateModelFromFile(env, a.model.c_str(), &model), "loading " + a.model);
  check(LiteRtCreateOptions(&options), "making options");
  check(LiteRtSetOptionsHardwareAccelerators(options, kAcceleratorCpu), "choosing the CPU");
  add_options(options, "xnnpack", "num_threads = " + std::to_string(a.threads) + "\n");
  if (!a.profile.empty()) add_options(options, "runtime_options_string", "enable_profiling = true\n");
  check(LiteRtCreateCompiledModel(env, model, options, &compiled), "compiling " + a.model);
  check(LiteRtGetModelSignature(model, 0, &signature), "reading the signature");
  report.load_ms = edgeopt::now_ms() - begin;

  Side inputs = make_inputs(a, env, signature, compiled, report);
  if (a.describe) {
    report.print();
    return 0;
  }
  Side outputs = make_outputs(env, signature, compiled);
  LiteRtProfiler profiler = nullptr;
  if (!a.profile.empty() && LiteRtCompiledModelGetProfiler(compiled, &profiler) == 0 && profiler != nullptr) {
    LiteRtStartProfiler(profiler);
  }
  edgeopt::run_protocol(a, report, [&] {
    check(LiteRtRunCompiledModel(compiled, 0, inputs.buffers.size(), inputs.buffers.data(),
                                 outputs.buffers.size(), outputs.buffers.data()),
          "running the model");
  });
  write_outputs(a, outputs, report);
  if (profiler != nullptr) {
    LiteRtStopProfiler(profiler);
    write_profile(a, compiled, profiler, report);
  }
  report.print();
  return 0;
}
