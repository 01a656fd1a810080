// What runs on a phone or board that has neither TVM nor Python, linked statically with a network in C or with kernels:
//   runner describe                          says what the device is
//   runner conditions                        says in which state it is
//   runner run LIMIT THREADS INPUTS OUTPUTS  runs each sample; OUTPUTS gets what it computes
//   runner time LIMIT THREADS RUNS INPUTS OUTPUTS
//                                            times the first sample; OUTPUTS gets what it computes
//   runner kernels LIMIT ROUNDS MICROSECONDS INPUTS OUTPUTS
//                                            times kernels in turns, in bursts that long; INPUTS has the tensors of
//                                            each, and OUTPUTS gets what the first call computes
// The last line of standard output is JSON; answers.py has its types. LIMIT is in seconds: SIGALRM ends the program.
// BIBENCH_EXECUTED, in the environment, names the file in which an emulator counts executed instructions: then these
// are the nanoseconds, and the device says that it is emulated.
//
// call.h is written for what the program is linked with: for a network OUTPUT_COUNT, WORKSPACE_BYTES_OF(THREADS),
// START(THREADS), STOP(POOL) and CALL(TENSORS, WORKSPACE, POOL); for kernels that TVM has compiled OUTPUT_COUNT and
// KERNELS(K), which is K(name) for each. Where it has none of them, only the first two work.
#define _GNU_SOURCE
#include <ctype.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <time.h>

#include "call.h"
#include "tensor_file.h"

enum { kMaxCores = 256, kMaxText = 4096, kPage = 4096 };

static const volatile uint64_t* executed;  // NULL where nobody counts

static void find_counter(void) {
  const char* path = getenv("BIBENCH_EXECUTED");
  if (!path) return;
  int file = open(path, O_RDONLY);
  void* page = file < 0 ? MAP_FAILED : mmap(NULL, kPage, PROT_READ, MAP_SHARED, file, 0);
  if (page == MAP_FAILED) die("The count of instructions cannot be read from %s.", path);
  close(file);
  executed = page;
}

// The first line of a file, without its end; NULL where it cannot be read. It is good until the next call.
static const char* first_line(const char* path) {
  static char text[kMaxText];
  FILE* file = fopen(path, "r");
  if (!file) return NULL;
  const char* line = fgets(text, sizeof text, file);
  fclose(file);
  if (line) text[strcspn(text, "\r\n")] = 0;
  return line && *line ? line : NULL;
}

static const char* of_core(int core, const char* name) {
  char path[128];
  snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/%s", core, name);
  return first_line(path);
}

// What stands behind a name and a colon in a file such as /proc/meminfo, or NULL; it is good until the next call.
static const char* after(const char* path, const char* name) {
  static char text[kMaxText];
  FILE* file = fopen(path, "r");
  if (!file) return NULL;
  const char* found = NULL;
  while (!found && fgets(text, sizeof text, file))
    if (strncmp(text, name, strlen(name)) == 0 && (found = strchr(text, ':'))) {
      text[strcspn(text, "\r\n")] = 0;
      found += 1 + strspn(found + 1, " \t");
    }
  fclose(file);
  return found;
}

static void print_text(const char* name, const char* text) {
  printf("\"%s\": ", name);
  if (!text) {
    fputs("null, ", stdout);
    return;
  }
  putchar('"');
  for (; *text; text++) putchar(isprint((unsigned char)*text) && *text != '"' && *text != '\\' ? *text : '?');
  fputs("\", ", stdout);
}

static void print_number(const char* name, const char* digits, double scale) {
  if (digits && isdigit((unsigned char)*digits))
    printf("\"%s\": %.17g, ", name, strtod(digits, NULL) * scale);
  else
    printf("\"%s\": null, ", name);
}

// How fast a core is, beside others of the same device.
static long speed(int core) {
  const char* said = of_core(core, "cpu_capacity");
  if (!said) said = of_core(core, "cpufreq/cpuinfo_max_freq");
  return said ? atol(said) : 0;
}

// All cores that this program may run on, the fastest first.
static int allowed_cores(int* cores) {
  static long speeds[kMaxCores];
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  int count = 0;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) die("The device does not say which cores may be used.");
  for (int core = 0; core < kMaxCores; core++) {
    if (!CPU_ISSET(core, &allowed)) continue;
    long fast = speed(core);
    int place = count++;
    for (; place > 0 && speeds[place - 1] < fast; place--) {
      cores[place] = cores[place - 1];
      speeds[place] = speeds[place - 1];
    }
    cores[place] = core;
    speeds[place] = fast;
  }
  return count;
}

// Keeps the program, and the threads that it will start, on these cores.
static int stay_on(const int* cores, int count) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (int i = 0; i < count; i++) CPU_SET(cores[i], &set);
  return sched_setaffinity(0, sizeof set, &set) == 0;
}

// The kernel's names of what the processor has.
static void print_features(void) {
  fputs("\"features\": \"", stdout);
#if defined(__aarch64__)
  unsigned long has = getauxval(AT_HWCAP);
  printf("%s%s%s", has >> 1 & 1 ? "asimd " : "", has >> 10 & 1 ? "asimdhp " : "", has >> 20 & 1 ? "asimddp " : "");
#elif defined(__arm__)
  unsigned long has = getauxval(AT_HWCAP);
  printf("%s%s", has >> 12 & 1 ? "neon " : "", has >> 16 & 1 ? "vfpv4 " : "");
#else
  const char* words = after("/proc/cpuinfo", "flags");
  for (; words && *words; words++)
    if (isalnum((unsigned char)*words) || *words == '_' || *words == ' ') putchar(*words);
#endif
  fputs("\", ", stdout);
}

static void describe(void) {
  int cores[kMaxCores], count = allowed_cores(cores);
  struct utsname system;
  struct sysinfo memory;
  if (uname(&system) != 0 || sysinfo(&memory) != 0) die("The device does not say what it is.");
  stay_on(cores, 1);
  printf("{");
  print_text("machine", system.machine);
  print_text("model", after("/proc/cpuinfo", "model name"));
  print_features();
#if defined(__aarch64__)
  if (getauxval(AT_HWCAP) >> 11 & 1) {  // the kernel lets programs read which core this is
    uint64_t identity;
    __asm__("mrs %0, midr_el1" : "=r"(identity));
    printf("\"midr\": %llu, ", (unsigned long long)identity);
  } else {
    printf("\"midr\": null, ");
  }
#else
  printf("\"midr\": null, ");
#endif
  print_text("governor", of_core(cores[0], "cpufreq/scaling_governor"));
  // A thread that waits for another executes instructions too.
  printf("\"emulated\": %s, \"memory_bytes\": %llu, \"cores\": %d}\n", executed ? "true" : "false",
         (unsigned long long)memory.totalram * memory.mem_unit, executed ? 1 : count);
}

static void conditions(void) {
  int cores[kMaxCores];
  allowed_cores(cores);
  struct sysinfo load;
  struct statvfs disk;
  printf("{");
  print_text("governor", of_core(cores[0], "cpufreq/scaling_governor"));
  print_number("mhz", of_core(cores[0], "cpufreq/scaling_cur_freq"), 1e-3);
  print_number("temperature_c", first_line("/sys/class/thermal/thermal_zone0/temp"), 1e-3);
  print_text("throttled", first_line("/sys/devices/platform/soc/soc:firmware/get_throttled"));
  print_number("memory_available_bytes", after("/proc/meminfo", "MemAvailable"), 1024);
  if (sysinfo(&load) == 0)
    printf("\"load_average\": %.17g, ", (double)load.loads[0] / 65536);
  else
    printf("\"load_average\": null, ");
  if (statvfs(".", &disk) == 0)
    printf("\"disk_free_bytes\": %llu}\n", (unsigned long long)disk.f_bavail * disk.f_frsize);
  else
    printf("\"disk_free_bytes\": null}\n");
}

static uint64_t nanoseconds(void) {
  if (executed) return *executed;
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

// A processor that was idle takes a while to reach its clock; one that is emulated has none.
static uint64_t warm_up_time(void) { return executed ? 0 : 300000000; }

#ifdef CALL

static DLTensor tensors[kMaxTensors];
static void* places[kMaxTensors];

// The tensors of a sample, inputs and then outputs. Places stay where they are from sample to sample.
static uint32_t next_sample(FILE* inputs, int first) {
  uint32_t count = read_count(inputs, kMaxTensors, "tensors in a sample");
  if (count < OUTPUT_COUNT) die("A sample has no place for the outputs.");
  for (uint32_t i = 0; i < count; i++) {
    read_tensor(inputs, &tensors[i]);
    if (first) {
      places[i] = tensors[i].data;
    } else {
      memcpy(places[i], tensors[i].data, (size_t)bytes_of(&tensors[i]));
      free(tensors[i].data);
      tensors[i].data = places[i];
    }
  }
  return count;
}

static void write_outputs(FILE* outputs, uint32_t count) {
  write_count(outputs, OUTPUT_COUNT);
  for (uint32_t i = count - OUTPUT_COUNT; i < count; i++) write_tensor(outputs, &tensors[i]);
  flush(outputs);
}

// A pool of threads, or NULL for the one that asks.
static const void* start(int threads) {
  if (threads < 1) die("%d threads make no sense.", threads);
  const void* pool = threads > 1 ? START(threads) : NULL;
  if (threads > 1 && !pool) die("%d threads could not be started.", threads);
  return pool;
}

static void run(const char* from, const char* to, int threads) {
  FILE* inputs = open_input(from);
  FILE* outputs = open_output(to);
  uint32_t samples = read_count(inputs, UINT32_MAX - 1, "samples");
  write_count(outputs, samples);
  const void* pool = start(threads);
  void* workspace = allocate(WORKSPACE_BYTES_OF(threads));
  for (uint32_t sample = 0; sample < samples; sample++) {
    uint32_t count = next_sample(inputs, !sample);
    if (CALL(places, workspace, pool) != 0) die("The network failed.");
    write_outputs(outputs, count);
    for (uint32_t i = 0; i < count; i++) free(tensors[i].shape);
  }
  if (pool) STOP(pool);
  printf("{\"samples\": %u}\n", samples);
}

static void time_runs(const char* from, const char* to, int threads, int runs) {
  int cores[kMaxCores], available = allowed_cores(cores);
  if (threads > available) die("%d threads were asked for, and there are %d cores.", threads, available);
  int kept = stay_on(cores, threads);
  FILE* inputs = open_input(from);
  FILE* outputs = open_output(to);
  if (read_count(inputs, UINT32_MAX - 1, "samples") != 1) die("One sample is timed.");
  uint32_t count = next_sample(inputs, 1);
  const void* pool = start(threads);
  void* workspace = allocate(WORKSPACE_BYTES_OF(threads));
  uint64_t* taken = allocate((uint64_t)runs * sizeof *taken);
  int warm_up = 0;
  for (uint64_t begin = nanoseconds(); !warm_up || nanoseconds() - begin < warm_up_time(); warm_up++)
    if (CALL(places, workspace, pool) != 0) die("The network failed.");
  write_count(outputs, 1);
  write_outputs(outputs, count);
  void* first[OUTPUT_COUNT];
  for (uint32_t i = 0; i < OUTPUT_COUNT; i++) {
    DLTensor* output = &tensors[count - OUTPUT_COUNT + i];
    first[i] = allocate(bytes_of(output));
    memcpy(first[i], output->data, (size_t)bytes_of(output));
  }
  for (int i = 0; i < runs; i++) {
    uint64_t begin = nanoseconds();
    CALL(places, workspace, pool);
    taken[i] = nanoseconds() - begin;
    for (uint32_t j = 0; j < OUTPUT_COUNT; j++) {
      DLTensor* output = &tensors[count - OUTPUT_COUNT + j];
      if (memcmp(first[j], output->data, (size_t)bytes_of(output)) != 0)
        die("Run %d computed something else than the run before it.", i + 1);
    }
  }
  if (pool) STOP(pool);
  struct rusage used;
  getrusage(RUSAGE_SELF, &used);
  printf("{\"nanoseconds\": [");
  for (int i = 0; i < runs; i++) printf("%s%llu", i ? ", " : "", (unsigned long long)taken[i]);
  printf("], \"cores\": [");
  for (int i = 0; i < threads; i++) printf("%s%d", i ? ", " : "", cores[i]);
  printf("], \"kept_on_cores\": %s, \"warm_up_runs\": %d, ", kept ? "true" : "false", warm_up);
  print_text("governor", of_core(cores[0], "cpufreq/scaling_governor"));
  printf("\"peak_memory_bytes\": %llu}\n", (unsigned long long)used.ru_maxrss * 1024);
}

#endif

#ifdef KERNELS
#include "kernel_runtime.h"

typedef int (*Kernel)(void* self, const TVMFFIAny* arguments, int32_t count, TVMFFIAny* result);

#define DECLARED(name) int __tvm_ffi_##name(void*, const TVMFFIAny*, int32_t, TVMFFIAny*);
#define LISTED(name) __tvm_ffi_##name,
KERNELS(DECLARED)
static const Kernel kernels[] = {KERNELS(LISTED)};
enum { kKernels = sizeof kernels / sizeof *kernels, kMostCalls = 1 << 20 };

static DLTensor operands[kKernels][kMaxTensors];
static TVMFFIAny arguments[kKernels][kMaxTensors];
static uint32_t counts[kKernels];

static void read_operands(FILE* inputs, int kernel) {
  counts[kernel] = read_count(inputs, kMaxTensors, "tensors of a kernel");
  if (counts[kernel] < OUTPUT_COUNT) die("A kernel has no place for its outputs.");
  for (uint32_t i = 0; i < counts[kernel]; i++) {
    read_tensor(inputs, &operands[kernel][i]);
    arguments[kernel][i] = (TVMFFIAny){.type_index = kTVMFFIDLTensorPtr, .v_ptr = &operands[kernel][i]};
  }
}

// So many calls. Gives the nanoseconds of all of them.
static uint64_t burst(int kernel, int calls) {
  uint64_t begin = nanoseconds();
  for (int i = 0; i < calls; i++) {
    TVMFFIAny result = {.type_index = kTVMFFINone};
    if (kernels[kernel](NULL, arguments[kernel], (int32_t)counts[kernel], &result) != 0) die("The kernel failed.");
  }
  return nanoseconds() - begin;
}

// How many calls take so long.
static int calls_within(int kernel, uint64_t wanted) {
  for (int calls = 1; !executed; calls *= 2) {
    uint64_t taken = burst(kernel, calls);
    if (taken < wanted / 2 && calls < kMostCalls) continue;
    double fitting = (double)calls * (double)wanted / (double)(taken ? taken : 1);
    return fitting < 1 ? 1 : fitting > kMostCalls ? kMostCalls : (int)fitting;
  }
  return 1;
}

static void time_kernels(const char* from, const char* to, int rounds, int microseconds) {
  int cores[kMaxCores], calls[kKernels];
  if (rounds < 1 || microseconds < 1) die("%d rounds of %d microseconds make no sense.", rounds, microseconds);
  allowed_cores(cores);
  stay_on(cores, 1);
  FILE* inputs = open_input(from);
  FILE* outputs = open_output(to);
  if (read_count(inputs, kKernels, "kernels") != kKernels) die("There are tensors for other kernels.");
  write_count(outputs, kKernels);
  for (int k = 0; k < kKernels; k++) {
    read_operands(inputs, k);
    burst(k, 1);
    write_count(outputs, OUTPUT_COUNT);
    for (uint32_t i = counts[k] - OUTPUT_COUNT; i < counts[k]; i++) write_tensor(outputs, &operands[k][i]);
  }
  flush(outputs);
  for (uint64_t begin = nanoseconds(); !executed && nanoseconds() - begin < warm_up_time();)
    for (int k = 0; k < kKernels; k++) burst(k, 1);
  for (int k = 0; k < kKernels; k++) calls[k] = calls_within(k, (uint64_t)microseconds * 1000);
  double* taken = allocate((uint64_t)rounds * kKernels * sizeof *taken);
  for (int i = 0; i < rounds; i++)
    for (int k = 0; k < kKernels; k++) taken[k * rounds + i] = (double)burst(k, calls[k]) / calls[k];
  printf("{\"nanoseconds\": [");
  for (int k = 0; k < kKernels; k++)
    for (int i = 0; i < rounds; i++)
      printf("%s%.17g%s", i ? ", " : k ? ", [" : "[", taken[k * rounds + i], i + 1 < rounds ? "" : "]");
  printf("]}\n");
}

#endif

int main(int argc, char** argv) {
  forbid_core_dumps();
  find_counter();
  const char* what = argc > 1 ? argv[1] : "";
  if (argc == 2 && !strcmp(what, "describe")) return describe(), 0;
  if (argc == 2 && !strcmp(what, "conditions")) return conditions(), 0;
  if (argc > 2) alarm((unsigned)atoi(argv[2]));
#ifdef CALL
  if (argc == 6 && !strcmp(what, "run")) return run(argv[4], argv[5], atoi(argv[3])), 0;
  if (argc == 7 && !strcmp(what, "time")) return time_runs(argv[5], argv[6], atoi(argv[3]), atoi(argv[4])), 0;
#endif
#ifdef KERNELS
  if (argc == 7 && !strcmp(what, "kernels"))
    return time_kernels(argv[5], argv[6], atoi(argv[3]), atoi(argv[4])), 0;
#endif
  die("Usage: runner describe | conditions | run LIMIT THREADS INPUTS OUTPUTS | time LIMIT THREADS RUNS INPUTS OUTPUTS"
      " | kernels LIMIT ROUNDS MICROSECONDS INPUTS OUTPUTS");
}
