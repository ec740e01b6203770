// The part of LiteRT's C interface that the runner uses, for the versions the build allows (2.2 and 2.3).
//
// The wheel ships no headers. Names and meanings follow the project's public documentation of its C API;
// the layout of LiteRtLayout was checked against the library (a wrong layout gives wrong shapes at once,
// which the tests look at).
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

using LiteRtStatus = int;
using LiteRtEnvironment = struct LiteRtEnvironmentT*;
using LiteRtModel = struct LiteRtModelT*;
using LiteRtOptions = struct LiteRtOptionsT*;
using LiteRtOpaqueOptions = struct LiteRtOpaqueOptionsT*;
using LiteRtCompiledModel = struct LiteRtCompiledModelT*;
using LiteRtSignature = struct LiteRtSignatureT*;
using LiteRtTensor = struct LiteRtTensorT*;
using LiteRtTensorBuffer = struct LiteRtTensorBufferT*;
using LiteRtTensorBufferRequirements = struct LiteRtTensorBufferRequirementsT*;
using LiteRtProfiler = struct LiteRtProfilerT*;

struct LiteRtLayout {
  unsigned int rank : 7;
  unsigned int has_strides : 1;
  int32_t dimensions[8];
  uint32_t strides[8];
};

struct LiteRtRankedTensorType {
  int element_type;
  LiteRtLayout layout;
};
static_assert(sizeof(LiteRtRankedTensorType) == 72, "LiteRT's tensor type has another size on this machine");

constexpr int kAcceleratorCpu = 1;
constexpr int kLockRead = 0;
constexpr int kLockWrite = 1;

LiteRtStatus LiteRtCreateEnvironment(int num_options, const void* options, LiteRtEnvironment* out);
LiteRtStatus LiteRtCreateModelFromFile(LiteRtEnvironment env, const char* file, LiteRtModel* out);
LiteRtStatus LiteRtGetModelSignature(LiteRtModel model, size_t index, LiteRtSignature* out);
LiteRtStatus LiteRtGetNumSignatureInputs(LiteRtSignature signature, size_t* out);
LiteRtStatus LiteRtGetNumSignatureOutputs(LiteRtSignature signature, size_t* out);
LiteRtStatus LiteRtGetSignatureInputTensorByIndex(LiteRtSignature signature, size_t index, LiteRtTensor* out);
LiteRtStatus LiteRtGetSignatureOutputTensorByIndex(LiteRtSignature signature, size_t index, LiteRtTensor* out);
LiteRtStatus LiteRtGetRankedTensorType(LiteRtTensor tensor, LiteRtRankedTensorType* out);

LiteRtStatus LiteRtCreateOptions(LiteRtOptions* out);
LiteRtStatus LiteRtSetOptionsHardwareAccelerators(LiteRtOptions options, int accelerators);
LiteRtStatus LiteRtCreateOpaqueOptions(const char* identifier, void* data, void (*destroy)(void*),
                                       LiteRtOpaqueOptions* out);
LiteRtStatus LiteRtAddOpaqueOptions(LiteRtOptions options, LiteRtOpaqueOptions added);

LiteRtStatus LiteRtCreateCompiledModel(LiteRtEnvironment env, LiteRtModel model, LiteRtOptions options,
                                       LiteRtCompiledModel* out);
LiteRtStatus LiteRtCompiledModelResizeInputTensor(LiteRtCompiledModel model, size_t signature, size_t input,
                                                  const int* dimensions, size_t rank);
LiteRtStatus LiteRtGetCompiledModelInputBufferRequirements(LiteRtCompiledModel model, size_t signature,
                                                           size_t input, LiteRtTensorBufferRequirements* out);
LiteRtStatus LiteRtGetCompiledModelOutputBufferRequirements(LiteRtCompiledModel model, size_t signature,
                                                            size_t output, LiteRtTensorBufferRequirements* out);
LiteRtStatus LiteRtGetCompiledModelOutputTensorLayouts(LiteRtCompiledModel model, size_t signature,
                                                       size_t count, LiteRtLayout* out, bool update_allocation);
LiteRtStatus LiteRtRunCompiledModel(LiteRtCompiledModel model, size_t signature, size_t num_inputs,
                                    LiteRtTensorBuffer* inputs, size_t num_outputs,
                                    LiteRtTensorBuffer* outputs);

LiteRtStatus LiteRtCreateManagedTensorBufferFromRequirements(LiteRtEnvironment env,
                                                             const LiteRtRankedTensorType* type,
                                                             LiteRtTensorBufferRequirements needs,
                                                             LiteRtTensorBuffer* out);
LiteRtStatus LiteRtGetTensorBufferPackedSize(LiteRtTensorBuffer buffer, size_t* out);
LiteRtStatus LiteRtLockTensorBuffer(LiteRtTensorBuffer buffer, void** out, int mode);
LiteRtStatus LiteRtUnlockTensorBuffer(LiteRtTensorBuffer buffer);

LiteRtStatus LiteRtCompiledModelGetProfiler(LiteRtCompiledModel model, LiteRtProfiler* out);
LiteRtStatus LiteRtStartProfiler(LiteRtProfiler profiler);
LiteRtStatus LiteRtStopProfiler(LiteRtProfiler profiler);
LiteRtStatus LiteRtGetProfileSummary(LiteRtProfiler profiler, LiteRtCompiledModel model, const char** out);
}
