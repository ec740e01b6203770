// Written by edgeopt app; edgeopt app --update writes it anew.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

namespace com::acme::vision {

// One golden tensor: its sizes and its bytes, little-endian.
struct GoldenTensor {
  std::vector<int32_t> shape;
  std::vector<char> bytes;

  template <typename T>
  std::vector<T> values() const {
    std::vector<T> out(bytes.size() / sizeof(T));
    std::memcpy(out.data(), bytes.data(), out.size() * sizeof(T));
    return out;
  }
};

struct GoldenSample {
  std::vector<GoldenTensor> inputs, outputs;
};

// How far an output may be: at least so many dB of signal to noise, or that share of equal values.
struct Tolerance {
  std::string kind;
  double least = 0;
};

// The bundle's golden data; golden.txt says what each file holds.
struct Golden {
  std::vector<GoldenSample> samples;
  std::map<size_t, Tolerance> tolerances;

  // Throws std::runtime_error when a file can't be read.
  explicit Golden(const std::string& folder) {
    std::ifstream index = open(folder + "/golden.txt");
    for (std::string line; std::getline(index, line);) {
      std::istringstream words(line);
      std::string first, side, dtype, shape, file;
      size_t number = 0;
      words >> first;
      if (first == "tolerance") {
        Tolerance tolerance;
        words >> number >> tolerance.kind >> tolerance.least;
        tolerances[number] = tolerance;
      } else if (!first.empty() && first != "#") {
        words >> side >> number >> dtype >> shape >> file;
        samples.resize(std::stoul(first) + 1);
        auto& list = side == "input" ? samples.back().inputs : samples.back().outputs;
        std::ifstream data = open(folder + "/" + file);
        list.push_back({sizes(shape), {std::istreambuf_iterator<char>(data), {}}});
      }
    }
  }

 private:
  static std::ifstream open(const std::string& path) {
    std::ifstream stream(path, std::ios::binary);
    if (!stream) throw std::runtime_error(path + " can't be read");
    return stream;
  }

  static std::vector<int32_t> sizes(const std::string& text) {
    std::vector<int32_t> out;
    if (text == "-") return out;
    std::istringstream words(text);
    for (std::string size; std::getline(words, size, 'x');) out.push_back(std::stoi(size));
    return out;
  }
};

// IEEE 754 half precision, which C++17 has no type for.
inline double half(uint16_t bits) {
  const double sign = bits & 0x8000 ? -1.0 : 1.0;
  const int exponent = bits >> 10 & 0x1f;
  const double fraction = (bits & 0x3ff) / 1024.0;
  if (exponent == 0x1f) {
    return fraction == 0 ? sign * std::numeric_limits<double>::infinity() : std::numeric_limits<double>::quiet_NaN();
  }
  return exponent == 0 ? sign * std::ldexp(fraction, -14) : sign * std::ldexp(1 + fraction, exponent - 15);
}

// Agreement of one output over all samples.
class Agreement {
 public:
  template <typename T>
  void add(const std::vector<T>& wanted, const std::vector<T>& found) {
    if (wanted.size() != found.size()) throw std::runtime_error("an output has another number of values");
    for (size_t i = 0; i < wanted.size(); ++i) add_one(value(wanted[i]), value(found[i]));
  }

  // What was reached, in the tolerance's own measure; infinite for an exact match.
  double reached(const Tolerance& tolerance) const {
    if (tolerance.kind == "agreement") return count_ == 0 ? 1.0 : static_cast<double>(equal_) / count_;
    if (odd_differ_) return -std::numeric_limits<double>::infinity();
    return noise_ == 0 ? std::numeric_limits<double>::infinity() : 10 * std::log10(signal_ / noise_);
  }

 private:
  template <typename T>
  static double value(T x) {
    if constexpr (std::is_same_v<T, uint16_t>) return half(x);
    return static_cast<double>(x);
  }

  void add_one(double wanted, double found) {
    ++count_;
    equal_ += wanted == found;
    if (std::isfinite(wanted) && std::isfinite(found)) {
      signal_ += wanted * wanted;
      noise_ += (wanted - found) * (wanted - found);
    } else {
      odd_differ_ = odd_differ_ || std::isfinite(wanted) != std::isfinite(found);
    }
  }

  double signal_ = 0, noise_ = 0;
  long count_ = 0, equal_ = 0;
  bool odd_differ_ = false;
};

}  // namespace com::acme::vision
