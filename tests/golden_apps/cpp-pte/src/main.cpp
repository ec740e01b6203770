// Replays the bundle's golden inputs and holds the outputs to the bundle's tolerances.
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <vector>

#include "golden.h"
#include "tiny_net.h"

namespace {

int replay(const std::string& data, int threads) {
  const char* const names[] = {
      "logits",
      "mask",
  };
  const com::acme::vision::Golden golden(data + "/golden");
  com::acme::vision::TinyNet model(data + "/model.pte", threads);
  std::vector<com::acme::vision::Agreement> agreements(2);
  for (const auto& sample : golden.samples) {
    const auto outputs = model.run(
        sample.inputs.at(0).values<float>());
    agreements[0].add(sample.outputs.at(0).values<float>(), outputs.logits);
    agreements[1].add(sample.outputs.at(1).values<int64_t>(), outputs.mask);
  }
  int failed = 0;
  for (size_t i = 0; i < agreements.size(); ++i) {
    const auto& tolerance = golden.tolerances.at(i);
    const double reached = agreements[i].reached(tolerance);
    const bool good = reached >= tolerance.least;
    failed += !good;
    std::printf("%s %s: %s %.4f, at least %.4f, %zu samples\n", good ? "ok" : "FAILED", names[i],
                tolerance.kind.c_str(), reached, tolerance.least, golden.samples.size());
  }
  return failed == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: %s DATA_FOLDER [THREADS]\n", argv[0]);
    return 2;
  }
  const int threads = argc > 2 ? std::atoi(argv[2]) : com::acme::vision::TinyNet::kDefaultThreads;
  if (threads < 1) {
    std::fprintf(stderr, "THREADS must be 1 or more\n");
    return 2;
  }
  try {
    return replay(argv[1], threads);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
