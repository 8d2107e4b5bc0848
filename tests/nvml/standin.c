/* A stand-in for libnvidia-ml.so.1: GPUs that draw a known power, seen through the functions that pynvml calls.
 *
 * Time is virtual (the test sets it, every driver call moves it on) or CLOCK_MONOTONIC. Energy is the closed-form integral of
 * power. What the test commands begins with standin_; all else has NVML's names and layouts (as in pynvml.py).
 * Until GPUs are set, nvmlInit says that no driver is loaded, so that other tests in the same process find what they expect.
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, DRIVER_NOT_LOADED = 9, GPU_IS_LOST = 15, UNKNOWN = 999 };
enum { CONSTANT, SQUARE, RAMP, BURST };
enum { MOST_GPUS = 16, MOST_SLICES = 7, TEXT = 96 };

/* Instants are seconds on the clock in force; INFINITY means never. Mirrored by _Gpu in standin.py. */
typedef struct {
    char uuid[TEXT], name[TEXT];
    char slice_uuids[MOST_SLICES][TEXT]; /* an empty one is a hole in the numbering */
    unsigned slice_sizes[MOST_SLICES], slice_compute_sizes[MOST_SLICES], slice_instances[MOST_SLICES], slice_computes[MOST_SLICES];
    unsigned mig, cores, clock_mhz, has_counter, has_power;
    int trace_kind;
    double trace[4];
    double limit_watts, counter_origin_joules;
    double refresh_seconds; /* the counter moves so often; 0: always */
    double reset_at, jump_at, jump_joules, stuck_at, stuck_until;
    double counter_fails_at, counter_fails_until, lost_at, lost_until;
    double sensors_fail_at, sensors_fail_until; /* utilisation, memory, temperature */
    double slow_at, slow_seconds; /* the first call at or after slow_at takes so long */
} gpu_t;

typedef struct { int gpu, slice; } handle_t; /* slice is -1 for the GPU itself */
typedef struct { unsigned gpu, memory; } utilization_t;
typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned counts[6], gpu_instance_slices, compute_instance_slices; unsigned long long memory_mb; } attributes_t;

static gpu_t gpus[MOST_GPUS];
static handle_t gpu_handles[MOST_GPUS], slice_handles[MOST_GPUS][MOST_SLICES];
static int gpu_count, inits, real_time;
static double virtual_now, call_seconds, sampled_at = 0.5;

/* What the test commands */

void standin_clear(void) { gpu_count = inits = real_time = 0; virtual_now = call_seconds = 0; sampled_at = 0.5; }
void standin_set_now(double now) { virtual_now = now; }
int standin_inits(void) { return inits; }

/* A virtual call lasts `seconds`; what it answers was true after `fraction` of them. */
void standin_set_call(double seconds, double fraction) { call_seconds = seconds; sampled_at = fraction; }

double standin_now(void) {
    struct timespec t;
    if (!real_time) return virtual_now;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

int standin_add_gpu(const gpu_t *gpu) {
    if (gpu_count == MOST_GPUS) return -1;
    gpus[gpu_count] = *gpu;
    gpu_handles[gpu_count] = (handle_t){gpu_count, -1};
    for (int i = 0; i < MOST_SLICES; i++) slice_handles[gpu_count][i] = (handle_t){gpu_count, i};
    return gpu_count++;
}

/* The truth */

static double watts(const gpu_t *gpu, double t) {
    const double *p = gpu->trace;
    switch (gpu->trace_kind) {
    case SQUARE: return fmod(t + p[3], p[2]) < p[2] / 2 ? p[1] : p[0];  /* low, high, period, phase */
    case RAMP: return p[0] + (p[1] - p[0]) * fmin(fmax((t - p[2]) / (p[3] - p[2]), 0), 1); /* from, to, begin, end */
    case BURST: return t >= p[2] && t < p[3] ? p[1] : p[0];             /* base, peak, begin, end */
    default: return p[0];
    }
}

static double antiderivative(const gpu_t *gpu, double t) {
    const double *p = gpu->trace;
    double whole, rest, length;
    switch (gpu->trace_kind) {
    case SQUARE:
        whole = floor((t + p[3]) / p[2]);
        rest = t + p[3] - whole * p[2];
        return whole * p[2] * (p[0] + p[1]) / 2 + fmin(rest, p[2] / 2) * p[1] + fmax(rest - p[2] / 2, 0) * p[0];
    case RAMP:
        length = fmin(fmax(t - p[2], 0), p[3] - p[2]);
        return p[0] * t + (p[1] - p[0]) * (length * length / (p[3] - p[2]) / 2 + fmax(t - p[3], 0));
    case BURST: return p[0] * t + (p[1] - p[0]) * fmin(fmax(t - p[2], 0), p[3] - p[2]);
    default: return p[0] * t;
    }
}

static double counter_joules(const gpu_t *gpu, double t) {
    double seen = t >= gpu->stuck_at && t < gpu->stuck_until ? gpu->stuck_at : t;
    if (gpu->refresh_seconds > 0) seen = floor(seen / gpu->refresh_seconds) * gpu->refresh_seconds;
    double joules = seen >= gpu->reset_at ? antiderivative(gpu, seen) - antiderivative(gpu, gpu->reset_at)
                                          : antiderivative(gpu, seen) - antiderivative(gpu, 0) + gpu->counter_origin_joules;
    return joules + (seen >= gpu->jump_at ? gpu->jump_joules : 0);
}

/* The driver */

/* Every call on a device goes through here: it takes its time, and says at which instant (`t`) the answer is true. */
static int enter(const handle_t *handle, gpu_t **gpu, double *t) {
    if (!inits) return UNINITIALIZED;
    if (!handle) return INVALID_ARGUMENT;
    *gpu = &gpus[handle->gpu];
    double began = standin_now(), seconds = call_seconds;
    if (began >= (*gpu)->slow_at) {
        seconds = (*gpu)->slow_seconds;
        (*gpu)->slow_at = INFINITY;
    }
    if (!real_time) virtual_now += seconds;
    *t = real_time ? began : began + sampled_at * seconds;
    return *t >= (*gpu)->lost_at && *t < (*gpu)->lost_until ? GPU_IS_LOST : SUCCESS;
}

/* Each function of a driver begins with ENTER; those of a sensor go on with SENSOR. */
#define SENSOR() \
    if (t >= gpu->sensors_fail_at && t < gpu->sensors_fail_until) return UNKNOWN

#define ENTER(handle) \
    gpu_t *gpu; \
    double t; \
    int problem = enter(handle, &gpu, &t); \
    if (problem) return problem

/* "constant:300" or "square:100:500:2:0.3", for a fresh process that nobody commands. */
static void from_environment(void) {
    const char *count = getenv("STANDIN_GPUS"), *power = getenv("STANDIN_WATTS"), *counter = getenv("STANDIN_COUNTER");
    static const char *kinds[] = {"constant", "square", "ramp", "burst"};
    if (!count || gpu_count) return;
    real_time = 1;
    for (int i = 0; i < atoi(count); i++) {
        gpu_t gpu = {.name = "Stand-in GPU", .cores = 1, .clock_mhz = 1, .has_counter = !counter || atoi(counter), .has_power = 1, .limit_watts = 700,
                     .reset_at = INFINITY, .jump_at = INFINITY, .stuck_at = INFINITY, .counter_fails_at = INFINITY,
                     .lost_at = INFINITY, .sensors_fail_at = INFINITY, .slow_at = INFINITY};
        char kind[16] = "constant";
        gpu.trace[0] = 100;
        if (power) sscanf(power, "%15[a-z]:%lf:%lf:%lf:%lf", kind, gpu.trace, gpu.trace + 1, gpu.trace + 2, gpu.trace + 3);
        for (int k = CONSTANT; k <= BURST; k++) if (!strcmp(kind, kinds[k])) gpu.trace_kind = k;
        snprintf(gpu.uuid, TEXT, "GPU-%08x-0000-0000-0000-000000000000", i);
        standin_add_gpu(&gpu);
    }
}

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    from_environment();
    if (!gpu_count) return DRIVER_NOT_LOADED;
    inits++;
    return SUCCESS;
}

int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return inits ? (inits--, SUCCESS) : UNINITIALIZED; }

const char *nvmlErrorString(int result) {
    switch (result) {
    case SUCCESS: return "Success";
    case UNINITIALIZED: return "Uninitialized";
    case INVALID_ARGUMENT: return "Invalid Argument";
    case NOT_SUPPORTED: return "Not Supported";
    case NOT_FOUND: return "Not Found";
    case DRIVER_NOT_LOADED: return "Driver Not Loaded";
    case GPU_IS_LOST: return "GPU is lost";
    default: return "Unknown Error";
    }
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = gpu_count;
    return inits ? SUCCESS : UNINITIALIZED;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, handle_t **handle) {
    if (index >= (unsigned)gpu_count) return INVALID_ARGUMENT;
    *handle = &gpu_handles[index];
    ENTER(*handle);
    return SUCCESS;
}

int nvmlDeviceGetUUID(const handle_t *handle, char *text, unsigned length) {
    ENTER(handle);
    snprintf(text, length, "%s", handle->slice < 0 ? gpu->uuid : gpu->slice_uuids[handle->slice]);
    return SUCCESS;
}

int nvmlDeviceGetName(const handle_t *handle, char *text, unsigned length) {
    ENTER(handle);
    snprintf(text, length, "%s", gpu->name);
    return SUCCESS;
}

int nvmlDeviceGetTotalEnergyConsumption(const handle_t *handle, uint64_t *millijoules) {
    ENTER(handle);
    if (!gpu->has_counter || handle->slice >= 0 || (t >= gpu->counter_fails_at && t < gpu->counter_fails_until)) return NOT_SUPPORTED;
    *millijoules = (uint64_t)llround(counter_joules(gpu, t) * 1000);
    return SUCCESS;
}

int nvmlDeviceGetPowerUsage(const handle_t *handle, unsigned *milliwatts) {
    ENTER(handle);
    if (!gpu->has_power || handle->slice >= 0) return NOT_SUPPORTED;
    *milliwatts = (unsigned)lround(watts(gpu, t) * 1000);
    return SUCCESS;
}

int nvmlDeviceGetEnforcedPowerLimit(const handle_t *handle, unsigned *milliwatts) {
    ENTER(handle);
    *milliwatts = (unsigned)lround(gpu->limit_watts * 1000);
    return SUCCESS;
}

int nvmlDeviceGetUtilizationRates(const handle_t *handle, utilization_t *rates) {
    ENTER(handle);
    SENSOR();
    *rates = (utilization_t){50, 25};
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(const handle_t *handle, memory_t *memory) {
    ENTER(handle);
    SENSOR();
    *memory = (memory_t){80ull << 30, 60ull << 30, 20ull << 30};
    return SUCCESS;
}

int nvmlDeviceGetTemperature(const handle_t *handle, int sensor, unsigned *degrees) {
    (void)sensor;
    ENTER(handle);
    SENSOR();
    *degrees = 40;
    return SUCCESS;
}

int nvmlDeviceGetNumGpuCores(const handle_t *handle, unsigned *cores) {
    ENTER(handle);
    *cores = gpu->cores;
    return SUCCESS;
}

int nvmlDeviceGetMaxClockInfo(const handle_t *handle, int type, unsigned *mhz) {
    (void)type;
    ENTER(handle);
    *mhz = gpu->clock_mhz;
    return SUCCESS;
}

int nvmlDeviceGetMigMode(const handle_t *handle, unsigned *current, unsigned *pending) {
    ENTER(handle);
    *current = *pending = gpu->mig;
    return SUCCESS;
}

int nvmlDeviceGetMaxMigDeviceCount(const handle_t *handle, unsigned *count) {
    ENTER(handle);
    *count = MOST_SLICES;
    return SUCCESS;
}

int nvmlDeviceGetMigDeviceHandleByIndex(const handle_t *handle, unsigned index, handle_t **slice) {
    ENTER(handle);
    if (index >= MOST_SLICES) return INVALID_ARGUMENT;
    if (!gpu->slice_uuids[index][0]) return NOT_FOUND;
    *slice = &slice_handles[handle->gpu][index];
    return SUCCESS;
}

int nvmlDeviceGetAttributes_v2(const handle_t *handle, attributes_t *attributes) {
    ENTER(handle);
    if (handle->slice < 0) return NOT_SUPPORTED;
    memset(attributes, 0, sizeof *attributes);
    attributes->gpu_instance_slices = gpu->slice_sizes[handle->slice];
    attributes->compute_instance_slices = gpu->slice_compute_sizes[handle->slice];
    return SUCCESS;
}

int nvmlDeviceGetGpuInstanceId(const handle_t *handle, unsigned *id) {
    ENTER(handle);
    if (handle->slice < 0) return NOT_SUPPORTED;
    *id = gpu->slice_instances[handle->slice];
    return SUCCESS;
}

int nvmlDeviceGetComputeInstanceId(const handle_t *handle, unsigned *id) {
    ENTER(handle);
    if (handle->slice < 0) return NOT_SUPPORTED;
    *id = gpu->slice_computes[handle->slice];
    return SUCCESS;
}
