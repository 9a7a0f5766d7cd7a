/* A hash chain over 256 MiB of state: chain STEPS PAUSE_MS [FILE]
 *
 * Each step reads words all over the state and rewrites 64 KiB of it, so its value depends on all that came before.
 * It prints "STEP HASH BOOT_NS RESTORED": integers alone, so every CPU prints the same hashes. BOOT_NS is the host's own
 * boot clock: what CRIU's time namespace added after a restore is taken off again. RESTORED is 1 where there is such a
 * namespace: a copy that was started has none. FILE gets steps and hashes alone. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { WORDS = 1 << 25, READS = 4096, WRITES = 8192 };

static uint64_t mix(uint64_t x) /* splitmix64's finaliser */
{
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

static int64_t namespace_ns(void)
{
    char line[128];
    long long seconds, nanoseconds, found = 0;
    FILE *file = fopen("/proc/self/timens_offsets", "r");
    if (!file)
        return 0;
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "boottime %lld %lld", &seconds, &nanoseconds) == 2)
            found = seconds * 1000000000ll + nanoseconds;
    fclose(file);
    return found;
}

static int64_t boot_ns(int64_t added)
{
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return now.tv_sec * 1000000000ll + now.tv_nsec - added;
}

int main(int count, char **words)
{
    long steps = count > 1 ? atol(words[1]) : 100, pause_ms = count > 2 ? atol(words[2]) : 250;
    FILE *kept = count > 3 ? fopen(words[3], "w") : NULL;
    uint64_t *state = mmap(NULL, WORDS * sizeof *state, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (state == MAP_FAILED)
        return 1;
    for (uint32_t i = 0; i < WORDS; i++) /* every eighth page is random, the others are alike */
        state[i] = i & 0xe00 ? i >> 15 : mix(i);
    setvbuf(stdout, NULL, _IOLBF, 0);
    uint64_t hash = 1;
    for (long step = 1; step <= steps; step++) {
        for (int i = 0; i < READS; i++)
            hash = mix(hash ^ state[hash % WORDS]);
        uint32_t start = (uint32_t)((step * 2654435761ull) % (WORDS / WRITES)) * WRITES;
        for (int i = 0; i < WRITES; i++)
            state[start + i] = hash = mix(hash ^ state[start + i]);
        int64_t added = namespace_ns();
        printf("%ld %016llx %lld %d\n", step, (unsigned long long)hash, (long long)boot_ns(added), added != 0);
        if (kept) {
            fprintf(kept, "%ld %016llx\n", step, (unsigned long long)hash);
            fflush(kept);
        }
        if (pause_ms)
            usleep(pause_ms * 1000);
    }
    return 0;
}
