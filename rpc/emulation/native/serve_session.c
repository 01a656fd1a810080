// One client's session on an emulated board, without Python; rpc/serve_session.py is the same for a real one:
//   serve_session SOCKET COUNT
// SOCKET is the descriptor of a connection whose greeting is over, and COUNT the file in which the plugin
// count_executed.c counts. The files of the session are in the current folder. Without arguments it prints which
// instructions the processor has, in the kernel's names.
//
// Everything is plain C over TVM's C interface, since TVM's libraries use another C++ library than zig's.
#include <asm/hwcap.h>
#include <fcntl.h>
#include <stddef.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/statvfs.h>

#include "ffi.h"

static const volatile uint64_t* executed;

// A C++ object with virtual functions, as every compiler for Arm lays it out (Itanium C++ ABI): first the pointer to
// its functions, then its base, TVM's object. runtime.TimerNode has these functions in this order, and nothing else.
typedef struct {
  void* const* functions;
  TVMFFIObject object;
  uint64_t start, stop;
} Timer;

static void timer_start(Timer* timer) { timer->start = *executed; }
static void timer_stop(Timer* timer) { timer->stop = *executed; }
static int64_t timer_nanoseconds(Timer* timer) { return (int64_t)(timer->stop - timer->start); }
static void timer_destroy(Timer* timer) { (void)timer; }

static void timer_delete(void* object, int flags) {
  if (flags & kTVMFFIObjectDeleterFlagBitMaskWeak) free((char*)object - offsetof(Timer, object));
}

static int raise_error(const char* sentence) {
  TVMFFIErrorSetRaisedFromCStr("RuntimeError", sentence);
  return -1;
}

static int give_text(const char* value, size_t size, TVMFFIAny* result) {
  return TVMFFIStringFromByteArray(&(TVMFFIByteArray){value, size}, result);
}

// Gives false where an argument is no string.
static int read_text(const TVMFFIAny* value, TVMFFIByteArray* content) {
  if (value->type_index == kTVMFFISmallStr)
    *content = (TVMFFIByteArray){value->v_bytes, value->small_str_len};
  else if (value->type_index == kTVMFFIRawStr)
    *content = (TVMFFIByteArray){value->v_c_str, strlen(value->v_c_str)};
  else if (value->type_index == kTVMFFIStr)
    *content = *(TVMFFIByteArray*)body(value);
  else
    return 0;
  return 1;
}

// One executed instruction is one nanosecond, for a time evaluator too.
static int new_timer(void* self, const TVMFFIAny* arguments, int32_t count, TVMFFIAny* result) {
  static void* const functions[] = {timer_start, timer_stop, timer_nanoseconds, timer_destroy, timer_destroy};
  (void)self, (void)arguments, (void)count;
  Timer* timer = calloc(1, sizeof *timer);
  TVMFFIByteArray key = {"runtime.TimerNode", strlen("runtime.TimerNode")};
  if (!timer || TVMFFITypeKeyToIndex(&key, &timer->object.type_index) != 0)
    return raise_error("There is no timer.");
  timer->functions = functions;
  timer->object.combined_ref_count = (uint64_t)1 << 32 | 1;
  timer->object.deleter = timer_delete;
  *result = (TVMFFIAny){.type_index = timer->object.type_index, .v_obj = &timer->object};
  return 0;
}

static int work_path(void* self, const TVMFFIAny* arguments, int32_t count, TVMFFIAny* result) {
  (void)self;
  TVMFFIByteArray name;
  char folder[4096], path[8192];
  if (count != 1 || !read_text(arguments, &name) || name.size >= sizeof folder || !getcwd(folder, sizeof folder))
    return raise_error("The name of a file is wrong.");
  int size = snprintf(path, sizeof path, "%s/%.*s", folder, (int)name.size, name.data);
  return give_text(path, (size_t)size, result);
}

static int load_module(void* self, const TVMFFIAny* arguments, int32_t count, TVMFFIAny* result) {
  TVMFFIByteArray name;
  if (count != 1 || !read_text(arguments, &name)) return raise_error("The name of a library is wrong.");
  if (name.size < 3 || memcmp(name.data + name.size - 3, ".so", 3) != 0)
    return raise_error("An emulated board has no linker: send it a library that is linked, a .so.");
  TVMFFIAny path = {.type_index = kTVMFFINone};
  if (work_path(self, arguments, count, &path) != 0) return -1;
  return TVMFFIFunctionCall(global_function("ffi.ModuleLoadFromFile"), &path, 1, result);
}

static int conditions(void* self, const TVMFFIAny* arguments, int32_t count, TVMFFIAny* result) {
  (void)self, (void)arguments, (void)count;
  struct statvfs disk;
  char json[100];
  if (statvfs(".", &disk) != 0) return raise_error("The disk does not say how much is free.");
  uint64_t bytes = (uint64_t)disk.f_bavail * disk.f_frsize;
  int size = snprintf(json, sizeof json, "{\"disk_free_bytes\": %llu}", (unsigned long long)bytes);
  return give_text(json, (size_t)size, result);
}

static int peak_memory(void* self, const TVMFFIAny* arguments, int32_t count, TVMFFIAny* result) {
  (void)self;
  char line[200];
  FILE* file;
  if (count == 1 && arguments->v_int64 && (file = fopen("/proc/self/clear_refs", "w"))) {
    fputs("5", file);
    fclose(file);
  }
  if (!(file = fopen("/proc/self/status", "r"))) return raise_error("The memory of a process is not told here.");
  long long kib = -1;
  while (fgets(line, sizeof line, file))
    if (sscanf(line, "VmHWM: %lld", &kib) == 1) break;
  fclose(file);
  *result = integer(kib * 1024);
  return kib < 0 ? raise_error("The memory of a process is not told here.") : 0;
}

// The profile that is being written: JSON, for each run a list of [symbol, nanoseconds].
static FILE* profile;
static int calls;
static uint64_t call_start;

static int watch(void* self, const TVMFFIAny* arguments, int32_t count, TVMFFIAny* result) {
  uint64_t now = *executed;
  (void)self;
  TVMFFIByteArray symbol;
  *result = integer(0);
  if (count < 3 || !read_text(&arguments[1], &symbol)) return 0;
  if (!arguments[2].v_int64) {
    fputs(calls++ ? ", [\"" : "[\"", profile);
    for (size_t i = 0; i < symbol.size; i++)
      if (symbol.data[i] >= ' ' && symbol.data[i] != '"' && symbol.data[i] != '\\') fputc(symbol.data[i], profile);
    fprintf(profile, "\", %llu]", (unsigned long long)(now - call_start));
  }
  call_start = *executed;
  return 0;
}

static int method(const TVMFFIAny* module, const char* name, TVMFFIAny* function) {
  TVMFFIAny arguments[] = {*module, text(name), {.type_index = kTVMFFIBool, .v_int64 = 1}};
  *function = (TVMFFIAny){.type_index = kTVMFFINone};
  if (TVMFFIFunctionCall(global_function("ffi.ModuleGetFunction"), arguments, 3, function) != 0) return -1;
  return function->type_index == kTVMFFIFunction ? 0 : raise_error("What is to be profiled is no virtual machine.");
}

static int profile_runs(void* self, const TVMFFIAny* arguments, int32_t count, TVMFFIAny* result) {
  (void)self;
  if (count != 3 || arguments[0].type_index != kTVMFFIModule || arguments[2].type_index != kTVMFFIInt)
    return raise_error("A profile takes a virtual machine, a function and a number of runs.");
  TVMFFIAny instrument, invoke, none, watching = {.type_index = kTVMFFIFunction};
  if (method(&arguments[0], "set_instrument", &instrument) != 0 ||
      method(&arguments[0], "invoke_stateful", &invoke) != 0)
    return -1;
  TVMFFIObjectHandle watcher;
  if (TVMFFIFunctionCreate(NULL, watch, NULL, &watcher) != 0) return -1;
  watching.v_obj = watcher;
  char* json = NULL;
  size_t size = 0;
  if (!(profile = open_memstream(&json, &size))) return raise_error("There is no memory for a profile.");
  none = (TVMFFIAny){.type_index = kTVMFFINone};
  int status = TVMFFIFunctionCall(instrument.v_obj, &watching, 1, &none);
  fputc('[', profile);
  for (int64_t run = 0; status == 0 && run < arguments[2].v_int64; run++) {
    fputs(run ? ", [" : "[", profile);
    calls = 0;
    TVMFFIAny function = arguments[1], nothing = {.type_index = kTVMFFINone};
    status = TVMFFIFunctionCall(invoke.v_obj, &function, 1, &nothing);
    fputc(']', profile);
  }
  fputc(']', profile);
  fclose(profile);
  if (status == 0) {
    TVMFFIAny nothing = {.type_index = kTVMFFINone}, nobody = nothing;
    status = TVMFFIFunctionCall(instrument.v_obj, &nobody, 1, &nothing);
  }
  if (status == 0) status = give_text(json, size, result);
  free(json);
  return status;
}

static void offer(const char* name, TVMFFISafeCallType function) {
  TVMFFIObjectHandle handle;
  TVMFFIByteArray key = {name, strlen(name)};
  check(TVMFFIFunctionCreate(NULL, function, NULL, &handle), name);
  check(TVMFFIFunctionSetGlobal(&key, handle, 1), name);
}

int main(int argc, char** argv) {
  forbid_core_dumps();
  if (argc == 1) {
    unsigned long has = getauxval(AT_HWCAP);
    printf("%s %s %s\n", has & HWCAP_ASIMD ? "asimd" : "", has & HWCAP_ASIMDHP ? "asimdhp" : "",
           has & HWCAP_ASIMDDP ? "asimddp" : "");
    fflush(stdout);
    _exit(0);
  }
  if (argc != 3) die("Usage: serve_session SOCKET COUNT");
  int file = open(argv[2], O_RDONLY);
  void* page = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *executed, PROT_READ, MAP_SHARED, file, 0);
  if (page == MAP_FAILED) die("The count of executed instructions in %s cannot be read.", argv[2]);
  executed = page;
  offer("runtime.timer.cpu", new_timer);
  offer("tvm.rpc.server.workpath", work_path);
  offer("tvm.rpc.server.load_module", load_module);
  offer("bibench.board.conditions", conditions);
  offer("bibench.board.peak_memory", peak_memory);
  offer("bibench.board.profile", profile_runs);
  TVMFFIAny connection = integer(atoi(argv[1])), nothing = {.type_index = kTVMFFINone};
  check(TVMFFIFunctionCall(global_function("rpc.ServerLoop"), &connection, 1, &nothing), "The session");
  // The runtime's threads and globals have nothing left to say.
  _exit(0);
}
