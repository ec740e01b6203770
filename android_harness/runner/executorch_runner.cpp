// Runs an ExecuTorch program (.pte) and reports in the line common.h describes.
//
// Built against the headers and shared libraries inside the executorch wheel for aarch64.
#include <executorch/devtools/etdump/etdump_flatcc.h>
#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>

#include <memory>

#include "common.h"

// The wheel exports the thread pool and cpuinfo without their headers: the parts used are declared here.
namespace executorch::extension::threadpool {
class ThreadPool {
 public:
  size_t get_thread_count() const;
  bool _unsafe_reset_threadpool(uint32_t threads);
};
ThreadPool* get_threadpool();
}  // namespace executorch::extension::threadpool

extern "C" {
struct cpuinfo_uarch_info {
  uint32_t uarch;
  uint32_t midr;
  uint32_t processor_count;
  uint32_t core_count;
};
bool cpuinfo_initialize(void);
const struct cpuinfo_uarch_info* cpuinfo_get_uarch(uint32_t index);
}

namespace {

using executorch::aten::ScalarType;
using executorch::extension::Module;
using executorch::extension::TensorPtr;
using executorch::runtime::Error;
using executorch::runtime::EValue;
using executorch::runtime::Tag;

// Writes the ETDump, and keeps what ends at each reading of the clock, so that the counter's sections get
// names. Every start and end reads the clock once. XNNPACK reads it once when its profile starts, once when
// its run starts and once after each of its operators, and tells the operators' names after the run.
class NamingTracer : public executorch::etdump::ETDumpGen {
 public:
  using ETDumpGen = executorch::etdump::ETDumpGen;
  using Entry = executorch::runtime::EventTracerEntry;

  Entry start_profiling(const char* name, executorch::runtime::ChainID chain,
                        executorch::runtime::DebugHandle handle) override {
    reads_.emplace_back();
    open_.push_back({name, reads_.size()});
    logging_ = false;
    return ETDumpGen::start_profiling(name, chain, handle);
  }

  void end_profiling(Entry entry) override {
    const Open last = open_.empty() ? Open{"", 0} : open_.back();
    if (!open_.empty()) open_.pop_back();
    // An event that held others has nothing of its own here but the runtime's work after the last of them.
    reads_.push_back(last.reads_before == reads_.size() ? last.name : "");
    logging_ = false;
    ETDumpGen::end_profiling(entry);
  }

  void log_profiling_delegate(const char* name, executorch::runtime::DelegateDebugIntId index,
                              et_timestamp_t start, et_timestamp_t end, const void* metadata,
                              size_t metadata_len) override {
    if (!logging_) reads_.insert(reads_.end(), 2, "");
    logging_ = true;
    reads_.emplace_back(name == nullptr ? "operator" : name);
    ETDumpGen::log_profiling_delegate(name, index, start, end, metadata, metadata_len);
  }

  void forget() { reads_.clear(); }

  // With the two readings of the run's own stop-watch around it.
  std::vector<std::string> sections() const {
    std::vector<std::string> all{""};
    all.insert(all.end(), reads_.begin(), reads_.end());
    all.emplace_back();
    return all;
  }

 private:
  struct Open {
    std::string name;
    size_t reads_before;
  };
  std::vector<std::string> reads_;
  std::vector<Open> open_;
  bool logging_ = false;
};

const char* dtype_name(ScalarType type) {
  switch (type) {
    case ScalarType::Float: return "float32";
    case ScalarType::Double: return "float64";
    case ScalarType::Half: return "float16";
    case ScalarType::BFloat16: return "bfloat16";
    case ScalarType::Byte: return "uint8";
    case ScalarType::Char: return "int8";
    case ScalarType::Short: return "int16";
    case ScalarType::Int: return "int32";
    case ScalarType::Long: return "int64";
    case ScalarType::Bool: return "bool";
    default: edgeopt::fail("a tensor has an element type this runner does not know");
  }
}

// The kernels choose by the core's MIDR; reading it back proves which core they believe in.
std::string uarch_name() {
  const cpuinfo_uarch_info* info = cpuinfo_initialize() ? cpuinfo_get_uarch(0) : nullptr;
  if (info == nullptr) return "";
  char text[32];
  std::snprintf(text, sizeof text, "0x%08x", info->uarch);
  return text;
}

void check(Error error, const std::string& doing) {
  if (error != Error::Ok) {
    edgeopt::fail(doing + " failed with ExecuTorch error " + std::to_string(static_cast<int>(error)));
  }
}

std::vector<TensorPtr> load_inputs(const edgeopt::Arguments& a, Module& module,
                                   std::vector<std::vector<char>>& storage, edgeopt::Report& report) {
  auto meta = module.method_meta(a.method);
  check(meta.error(), "reading the method '" + a.method + "'");
  if (!a.describe && meta->num_inputs() != a.inputs.size()) {
    edgeopt::fail("the model takes " + std::to_string(meta->num_inputs()) + " inputs, " +
                  std::to_string(a.inputs.size()) + " were given");
  }
  int64_t planned = 0;
  for (size_t i = 0; i < meta->num_memory_planned_buffers(); ++i) {
    auto size = meta->memory_planned_buffer_size(i);
    if (size.ok()) planned += *size;
  }
  report.planned_memory_bytes = static_cast<long>(planned);
  std::vector<TensorPtr> tensors;
  for (size_t i = 0; i < meta->num_inputs(); ++i) {
    auto info = meta->input_tensor_meta(i);
    if (!info.ok()) edgeopt::fail("input " + std::to_string(i) + " is not a tensor");
    std::vector<executorch::aten::SizesType> sizes(info->sizes().begin(), info->sizes().end());
    if (!a.describe && !a.shapes[i].empty()) sizes.assign(a.shapes[i].begin(), a.shapes[i].end());
    size_t expected = executorch::runtime::elementSize(info->scalar_type());
    for (const auto size : sizes) expected *= static_cast<size_t>(size);
    if (a.describe) {
      report.inputs.push_back(
          {"", dtype_name(info->scalar_type()), std::vector<int>(sizes.begin(), sizes.end()), expected});
      continue;
    }
    storage.push_back(edgeopt::read_input(a, i, dtype_name(info->scalar_type()), expected));
    report.inputs.push_back({a.inputs[i], dtype_name(info->scalar_type()),
                             std::vector<int>(sizes.begin(), sizes.end()), expected});
    tensors.push_back(
        executorch::extension::from_blob(storage.back().data(), std::move(sizes), info->scalar_type()));
  }
  return tensors;
}

void write_outputs(const edgeopt::Arguments& a, const std::vector<EValue>& values, edgeopt::Report& report) {
  for (const EValue& value : values) {
    if (!value.isTensor()) continue;
    const auto& tensor = value.toTensor();
    const std::string file =
        a.output_prefix.empty() ? "" : a.output_prefix + std::to_string(report.outputs.size()) + ".bin";
    if (!file.empty()) edgeopt::write_file(file, tensor.const_data_ptr(), tensor.nbytes());
    report.outputs.push_back({file, dtype_name(tensor.scalar_type()),
                              std::vector<int>(tensor.sizes().begin(), tensor.sizes().end()),
                              tensor.nbytes()});
  }
}

}  // namespace

int main(int argc, char** argv) {
  const edgeopt::Arguments a = edgeopt::parse(argc, argv);
  edgeopt::Report report;
  report.runtime = "executorch";

  // Before any program is loaded: XNNPACK keeps the pool it sees when a delegate is initialised.
  auto* pool = executorch::extension::threadpool::get_threadpool();
  if (pool != nullptr) {
    pool->_unsafe_reset_threadpool(static_cast<uint32_t>(a.threads));
    report.threads = static_cast<int>(pool->get_thread_count());
  }
  report.uarch = uarch_name();

  const double begin = edgeopt::now_ms();
  std::unique_ptr<NamingTracer> tracer;
  if (!a.profile.empty()) tracer = std::make_unique<NamingTracer>();
  NamingTracer* dump = tracer.get();
  Module module(a.model, Module::LoadMode::File, std::move(tracer));
  check(module.load_method(a.method), "loading " + a.model);
  report.load_ms = edgeopt::now_ms() - begin;

  std::vector<std::vector<char>> storage;
  storage.reserve(a.inputs.size());
  const std::vector<TensorPtr> inputs = load_inputs(a, module, storage, report);
  if (a.describe) {
    report.print();
    return 0;
  }
  const std::vector<EValue> arguments(inputs.begin(), inputs.end());
  std::vector<EValue> values;
  edgeopt::run_protocol(a, report, [&] {
    if (dump != nullptr) dump->forget();
    auto result = module.execute(a.method, arguments);
    check(result.error(), "running the model");
    values = std::move(*result);
  });
  write_outputs(a, values, report);
  if (dump != nullptr) {
    report.sections = dump->sections();
    const auto data = dump->get_etdump_data();
    if (data.buf != nullptr && data.size > 0) {
      edgeopt::write_file(a.profile, data.buf, data.size);
      report.profile = a.profile;
      std::free(data.buf);
    }
  }
  report.print();
  return 0;
}
