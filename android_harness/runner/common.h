// What both runners share: the command line, files, clocks, the features the CPU reports, the JSON line.
//
// A runner is one self-contained program: it reads a model and raw input tensors, runs the model, writes
// raw output tensors and prints exactly one line of JSON on stdout. Everything else goes to stderr.
#pragma once

#include <sys/auxv.h>
#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

namespace edgeopt {

struct Arguments {
  std::string model;
  std::string method = "forward";
  std::vector<std::string> inputs;         // one raw file an input, in the model's order
  std::vector<std::vector<int>> shapes;    // given as FILE@1x3x224x224; empty = the model's own shape
  std::vector<std::string> dtypes;         // given as FILE@1x3x224x224:int64; empty = the model's own
  std::string output_prefix;               // outputs go to PREFIX0.bin, PREFIX1.bin, ...
  std::string profile;                     // per-op profile in the runtime's own format; empty = none
  int threads = 1;
  int warmup = 1;
  int runs = 1;
  bool markers = false;
  bool describe = false;  // load the model, tell its inputs, run nothing
};

[[noreturn]] inline void fail(const std::string& what) {
  std::fprintf(stderr, "runner: %s\n", what.c_str());
  std::exit(2);
}

inline std::vector<int> parse_shape(const std::string& text) {
  std::vector<int> shape;
  for (const char* at = text.c_str(); *at != '\0';) {
    char* end = nullptr;
    shape.push_back(static_cast<int>(std::strtol(at, &end, 10)));
    if (end == at) fail("shape '" + text + "' is not like 1x3x224x224");
    at = *end == 'x' ? end + 1 : end;
  }
  return shape;
}

inline Arguments parse(int argc, char** argv) {
  Arguments a;
  for (int i = 1; i < argc; ++i) {
    std::string flag = argv[i];
    for (char& c : flag) {
      if (c == '_') c = '-';  // --num_threads and --num-threads are the same flag
    }
    if (flag == "--markers") {
      a.markers = true;
      continue;
    }
    if (flag == "--describe") {
      a.describe = true;
      continue;
    }
    if (i + 1 >= argc) fail("flag " + flag + " needs a value");
    const std::string value = argv[++i];
    if (flag == "--model") {
      a.model = value;
    } else if (flag == "--method") {
      a.method = value;
    } else if (flag == "--input") {
      const size_t at = value.rfind('@');
      const std::string form = at == std::string::npos ? "" : value.substr(at + 1);
      const size_t colon = form.find(':');
      a.inputs.push_back(value.substr(0, at));
      a.shapes.push_back(parse_shape(form.substr(0, colon)));
      a.dtypes.push_back(colon == std::string::npos ? "" : form.substr(colon + 1));
    } else if (flag == "--output-prefix") {
      a.output_prefix = value;
    } else if (flag == "--profile") {
      a.profile = value;
    } else if (flag == "--num-threads") {
      a.threads = std::atoi(value.c_str());
    } else if (flag == "--warmup") {
      a.warmup = std::atoi(value.c_str());
    } else if (flag == "--runs") {
      a.runs = std::atoi(value.c_str());
    } else {
      fail("unknown flag " + flag);
    }
  }
  if (a.model.empty()) fail("--model FILE is missing");
  if (a.threads < 1 || a.warmup < 0 || a.runs < 1) fail("--num-threads and --runs start at 1, --warmup at 0");
  return a;
}

inline std::vector<char> read_file(const std::string& path) {
  std::ifstream stream(path, std::ios::binary | std::ios::ate);
  if (!stream) fail("cannot read " + path);
  std::vector<char> bytes(static_cast<size_t>(stream.tellg()));
  stream.seekg(0);
  stream.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  return bytes;
}

template <typename From, typename To>
std::vector<char> converted(const std::vector<char>& bytes) {
  const size_t count = bytes.size() / sizeof(From);
  std::vector<char> out(count * sizeof(To));
  for (size_t i = 0; i < count; ++i) {
    From from;
    std::memcpy(&from, bytes.data() + i * sizeof(From), sizeof(From));
    const To to = static_cast<To>(from);
    std::memcpy(out.data() + i * sizeof(To), &to, sizeof(To));
  }
  return out;
}

// Input `index` as the model wants it: LiteRT's converters turn 64-bit inputs into 32-bit ones, so the same
// golden input must fit both formats.
inline std::vector<char> read_input(const Arguments& a, size_t index, const std::string& wanted,
                                    size_t wanted_bytes) {
  std::vector<char> bytes = read_file(a.inputs[index]);
  const std::string& given = a.dtypes[index];
  if (given == "int64" && wanted == "int32") {
    bytes = converted<int64_t, int32_t>(bytes);
  } else if (given == "int32" && wanted == "int64") {
    bytes = converted<int32_t, int64_t>(bytes);
  } else if (given == "float64" && wanted == "float32") {
    bytes = converted<double, float>(bytes);
  } else if (!given.empty() && given != wanted) {
    fail("input " + std::to_string(index) + " is " + given + ", the model wants " + wanted);
  }
  if (bytes.size() != wanted_bytes) {
    fail("input " + std::to_string(index) + " has " + std::to_string(bytes.size()) +
         " bytes, the model wants " + std::to_string(wanted_bytes));
  }
  return bytes;
}

inline void write_file(const std::string& path, const void* data, size_t size) {
  std::ofstream stream(path, std::ios::binary);
  stream.write(static_cast<const char*>(data), static_cast<std::streamsize>(size));
  if (!stream) fail("cannot write " + path);
}

inline double now_ms() {
  using clock = std::chrono::steady_clock;
  return std::chrono::duration<double, std::milli>(clock::now().time_since_epoch()).count();
}

// Marks the beginning and the end of one inference for the counter plugin: a system call with a number
// that Linux does not use, so that a real device answers ENOSYS and nothing else happens. Only with
// --markers, because the seccomp filter of an Android app may kill a process for an unknown call.
constexpr long kMarker = 0xED6E;
enum class Mark : long { kBegin = 1, kEnd = 2 };

inline void mark(const Arguments& a, Mark what, int run) {
  if (a.markers) syscall(kMarker, static_cast<long>(what), static_cast<long>(run));
}

// The instruction set extensions the kernel announces, which is what the compute kernels select by.
inline std::vector<std::string> cpu_features() {
  std::vector<std::string> names;
#if defined(__aarch64__)
  const unsigned long low = getauxval(AT_HWCAP);
  const unsigned long high = getauxval(AT_HWCAP2);
  const std::pair<int, const char*> low_bits[] = {
      {1, "neon"}, {8, "lse"},       {9, "fphp"},  {10, "fp16"}, {12, "rdm"},
      {15, "lrcpc"}, {20, "dotprod"}, {22, "sve"}, {23, "fp16fml"}};
  const std::pair<int, const char*> high_bits[] = {
      {1, "sve2"}, {13, "i8mm"}, {14, "bf16"}, {23, "sme"}};
  for (const auto& [bit, name] : low_bits) {
    if (low >> bit & 1) names.emplace_back(name);
  }
  for (const auto& [bit, name] : high_bits) {
    if (high >> bit & 1) names.emplace_back(name);
  }
#endif
  return names;
}

inline long peak_memory_kib() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss;
}

inline std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", c);
      out += escape;
    } else {
      out += c;
    }
  }
  return out + '"';
}

struct TensorLine {
  std::string file;
  std::string dtype;
  std::vector<int> shape;
  size_t bytes = 0;
};

inline std::string json(const std::vector<TensorLine>& tensors) {
  std::string out = "[";
  for (const TensorLine& t : tensors) {
    if (out.size() > 1) out += ", ";
    out += "{\"file\": " + quoted(t.file) + ", \"dtype\": " + quoted(t.dtype) + ", \"shape\": [";
    for (size_t i = 0; i < t.shape.size(); ++i) out += (i ? ", " : "") + std::to_string(t.shape[i]);
    out += "], \"bytes\": " + std::to_string(t.bytes) + "}";
  }
  return out + "]";
}

struct Report {
  std::string runtime;
  double load_ms = 0;
  double first_inference_ms = 0;
  std::vector<double> runs_ms;
  long planned_memory_bytes = -1;  // -1 = the runtime does not say
  int threads = 0;
  std::string uarch;               // the core the kernels believe to run on; empty = not told
  std::vector<TensorLine> inputs;
  std::vector<TensorLine> outputs;
  std::string profile;
  std::vector<std::string> sections;  // what ended at each reading of the clock in the last run; "" = runtime

  void print() const {
    char number[64];
    std::string line = "{\"runner\": 1, \"runtime\": " + quoted(runtime) +
                       ", \"runtime_version\": " + quoted(EDGEOPT_RUNTIME_VERSION);
    std::snprintf(number, sizeof number, ", \"load_ms\": %.4f", load_ms);
    line += number;
    std::snprintf(number, sizeof number, ", \"first_inference_ms\": %.4f", first_inference_ms);
    line += number;
    line += ", \"runs_ms\": [";
    for (size_t i = 0; i < runs_ms.size(); ++i) {
      std::snprintf(number, sizeof number, "%s%.4f", i ? ", " : "", runs_ms[i]);
      line += number;
    }
    line += "], \"peak_memory_kib\": " + std::to_string(peak_memory_kib());
    line += ", \"planned_memory_bytes\": ";
    line += planned_memory_bytes < 0 ? std::string("null") : std::to_string(planned_memory_bytes);
    line += ", \"threads\": " + std::to_string(threads);
    line += ", \"cpu_features\": [";
    const std::vector<std::string> features = cpu_features();
    for (size_t i = 0; i < features.size(); ++i) line += (i ? ", " : "") + quoted(features[i]);
    line += "], \"uarch\": " + (uarch.empty() ? std::string("null") : quoted(uarch));
    line += ", \"sections\": [";
    for (size_t i = 0; i < sections.size(); ++i) line += (i ? ", " : "") + quoted(sections[i]);
    line += "]";
    line += ", \"inputs\": " + json(inputs) + ", \"outputs\": " + json(outputs);
    line += ", \"profile\": " + (profile.empty() ? std::string("null") : quoted(profile)) + "}";
    std::printf("%s\n", line.c_str());
    std::fflush(stdout);
  }
};

// Warm-up and timed runs in the order every measurement uses; `infer` runs the model once.
template <typename Infer>
void run_protocol(const Arguments& a, Report& report, Infer&& infer) {
  report.runs_ms.reserve(static_cast<size_t>(a.runs));  // the heap must not move between two counted runs
  for (int i = 0; i < a.warmup + a.runs; ++i) {
    mark(a, Mark::kBegin, i);
    const double begin = now_ms();
    infer();
    const double took = now_ms() - begin;
    mark(a, Mark::kEnd, i);
    if (i == 0) report.first_inference_ms = took;
    if (i >= a.warmup) report.runs_ms.push_back(took);
  }
}

}  // namespace edgeopt
