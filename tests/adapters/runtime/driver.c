/* Stands in for NVIDIA's driver where there is no card: the calls of libnvidia-ml that cocoon.runtime.cards makes, with
 * the types of nvml.h, answered from the file $CARD_STATE, one "word numbers" a line. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned long long u64;
typedef struct { u64 total, free, used; } memory_t;
typedef struct { unsigned pid; u64 used; unsigned instance, compute; } process_t;
typedef struct { unsigned pid; u64 at_us; unsigned sm, mem, enc, dec; } sample_t;
enum { OK = 0, NO_PERMISSION = 4, NOT_FOUND = 6, TOO_SMALL = 7, UNKNOWN = 999 };

/* The n-th line that begins with word; its numbers. Returns whether there is one. */
static int said(const char *word, int n, u64 numbers[3]) {
    char line[256], key[32];
    FILE *state = fopen(getenv("CARD_STATE"), "r");
    int found = 0;
    while (state && !found && fgets(line, sizeof line, state)) {
        memset(numbers, 0, 3 * sizeof *numbers);
        if (sscanf(line, "%31s %llu %llu %llu", key, numbers, numbers + 1, numbers + 2) >= 1 && !strcmp(key, word))
            found = n-- == 0;
    }
    if (state) fclose(state);
    return found;
}

int nvmlInitWithFlags(unsigned flags) { return getenv("CARD_STATE") ? OK : UNKNOWN; }
int nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(int code) { return code == NO_PERMISSION ? "Insufficient Permissions" : "Unknown Error"; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **card) { *card = (void *)(size_t)(1 + index); return index < 2 ? OK : NOT_FOUND; }
int nvmlDeviceGetHandleByUUID(const char *name, void **card) { *card = (void *)9; return strcmp(name, "GPU-9") ? NOT_FOUND : OK; }
int nvmlDeviceGetName(void *card, char *name, unsigned length) { snprintf(name, length, "Card %d", (int)(size_t)card); return OK; }
int nvmlDeviceGetMemoryInfo(void *card, memory_t *memory) {
    u64 numbers[3];
    if (!said("memory", 0, numbers)) return UNKNOWN;
    memory->total = numbers[0], memory->free = numbers[1], memory->used = numbers[0] - numbers[1];
    return OK;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void *card, unsigned *count, process_t *processes) {
    u64 numbers[3];
    unsigned found = 0;
    for (; said("process", found, numbers); found++)
        if (processes && found < *count) processes[found] = (process_t){(unsigned)numbers[0], 1 << 20, -1, -1};
    int fits = processes ? found <= *count : !found;
    *count = found;
    return fits ? OK : TOO_SMALL;
}
int nvmlDeviceGetProcessUtilization(void *card, sample_t *samples, unsigned *count, u64 since_us) {
    u64 numbers[3];
    unsigned found = 0;
    for (int line = 0; said("sample", line, numbers); line++)
        if (numbers[1] > since_us) {
            if (samples && found < *count) samples[found] = (sample_t){(unsigned)numbers[0], numbers[1], (unsigned)numbers[2]};
            found++;
        }
    int fits = samples && found <= *count;
    *count = found;
    return !found ? NOT_FOUND : fits ? OK : TOO_SMALL;
}
int nvmlDeviceGetPowerManagementLimit(void *card, unsigned *limit_mw) {
    u64 numbers[3];
    if (!said("power", 0, numbers)) return UNKNOWN;
    *limit_mw = (unsigned)numbers[0];
    return OK;
}
int nvmlDeviceSetPowerManagementLimit(void *card, unsigned limit_mw) {
    u64 numbers[3];
    if (!said("root", 0, numbers)) return NO_PERMISSION;
    FILE *asked = fopen(getenv("CARD_ASKED"), "a");
    fprintf(asked, "%u\n", limit_mw);
    return fclose(asked) ? UNKNOWN : OK;
}
