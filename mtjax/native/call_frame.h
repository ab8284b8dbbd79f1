// What XLA gives to a custom call, read through XLA's C interface: to compile the C++ one would take
// longer than all of our code.
#pragma once

#include "xla/ffi/api/c_api.h"

namespace mtjax {

// Whether the frame is no call but XLA's question for which version of the interface this code was
// compiled, as when the custom call is registered; then the answer is written into the frame.
inline bool AnswersVersion(XLA_FFI_CallFrame* frame) {
  auto* extension = frame->extension_start;
  if (!extension || extension->type != XLA_FFI_Extension_Metadata) return false;
  XLA_FFI_Metadata* to = reinterpret_cast<XLA_FFI_Metadata_Extension*>(extension)->metadata;
  // What is not named is zero: no traits, no state.
  *to = {to->struct_size};
  to->api_version.struct_size = XLA_FFI_Api_Version_STRUCT_SIZE;
  to->api_version.major_version = XLA_FFI_API_MAJOR;
  to->api_version.minor_version = XLA_FFI_API_MINOR;
  return true;
}

inline XLA_FFI_Error* InvalidArgument(const XLA_FFI_CallFrame* frame, const char* message) {
  XLA_FFI_Error_Create_Args error = {};
  error.struct_size = XLA_FFI_Error_Create_Args_STRUCT_SIZE;
  error.message = message;
  error.errc = XLA_FFI_Error_Code_INVALID_ARGUMENT;
  return frame->api->XLA_FFI_Error_Create(&error);
}

// Operand or result number `i`; every one of them is an array.
inline const XLA_FFI_Buffer& Operand(const XLA_FFI_CallFrame* frame, int i) {
  return *static_cast<const XLA_FFI_Buffer*>(frame->args.args[i]);
}

inline const XLA_FFI_Buffer& Output(const XLA_FFI_CallFrame* frame, int i) {
  return *static_cast<const XLA_FFI_Buffer*>(frame->rets.rets[i]);
}

inline int64_t Count(const XLA_FFI_Buffer& buffer) {
  int64_t count = 1;
  for (int64_t i = 0; i < buffer.rank; ++i) count *= buffer.dims[i];
  return count;
}

}  // namespace mtjax
