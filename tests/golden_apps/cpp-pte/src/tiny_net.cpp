// Written by edgeopt app from the bundle's manifest; edgeopt app --update writes it anew.
#include "tiny_net.h"

#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <utility>

#include "sha256.h"

namespace com::acme::vision {
namespace {

constexpr const char* kSha256 = "72736fb9aa66608fa8892c46ca9710f2150eab2276fb05f14a040c455fc98f85";

const std::string& checked(const std::string& file) {
  std::ifstream stream(file, std::ios::binary);
  if (!stream) throw std::runtime_error(file + " can't be read");
  const std::string found = detail::sha256({std::istreambuf_iterator<char>(stream), {}});
  if (found != kSha256) {
    throw std::runtime_error(file + " is not the file that was exported: its SHA-256 is " + found);
  }
  return file;
}

template <typename T>
detail::Input as_input(const char* name, const std::vector<T>& values, std::vector<int32_t> shape) {
  size_t count = 1;
  for (const int32_t size : shape) count *= static_cast<size_t>(size);
  if (values.size() != count) {
    throw std::invalid_argument(std::string(name) + " has " + std::to_string(values.size()) +
                                " values, the model takes " + std::to_string(count));
  }
  return {values.data(), count * sizeof(T), std::move(shape)};
}

template <typename T>
void copy_bytes(std::vector<T>& output, const std::vector<char>& bytes) {
  output.resize(bytes.size() / sizeof(T));
  std::memcpy(output.data(), bytes.data(), output.size() * sizeof(T));
}

}  // namespace

TinyNet::TinyNet(const std::string& model_file, int threads)
    : runtime_(checked(model_file), threads) {}

TinyNet::Outputs TinyNet::run(
    const std::vector<float>& image) {
  const std::vector<std::vector<char>> results_ = runtime_.run({
      as_input("image", image, {1, 3, 8, 8}),
  });
  if (results_.size() != 2) throw std::runtime_error("the model gave another number of outputs");
  Outputs outputs_;
  copy_bytes(outputs_.logits, results_[0]);
  copy_bytes(outputs_.mask, results_[1]);
  return outputs_;
}

}  // namespace com::acme::vision
