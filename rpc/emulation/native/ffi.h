// What our C programs use of TVM's C interface: calls, names and the bodies of objects.
#ifndef BIBENCH_FFI_H
#define BIBENCH_FFI_H

#include <tvm/ffi/c_api.h>

#include "process.h"

// c_api.h has these accessors for C++ alone: the body of an object follows its header.
static inline void* body(const TVMFFIAny* value) { return (char*)value->v_obj + sizeof(TVMFFIObject); }

static void check(int status, const char* doing) {
  TVMFFIObjectHandle error = NULL;
  if (status == 0) return;
  TVMFFIErrorMoveFromRaised(&error);
  if (!error) die("%s failed without a word.", doing);
  TVMFFIErrorCell* cell = (TVMFFIErrorCell*)((char*)error + sizeof(TVMFFIObject));
  die("%s failed: %.*s: %.*s", doing, (int)cell->kind.size, cell->kind.data, (int)cell->message.size,
      cell->message.data);
}

static inline TVMFFIAny integer(int64_t value) {
  return (TVMFFIAny){.type_index = kTVMFFIInt, .v_int64 = value};
}

static inline TVMFFIAny text(const char* value) {
  return (TVMFFIAny){.type_index = kTVMFFIRawStr, .v_c_str = value};
}

static TVMFFIObjectHandle global_function(const char* name) {
  TVMFFIByteArray key = {name, strlen(name)};
  TVMFFIObjectHandle function = NULL;
  check(TVMFFIFunctionGetGlobal(&key, &function), name);
  if (!function) die("This TVM runtime has no function %s.", name);
  return function;
}

#endif
