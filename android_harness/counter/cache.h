/* A core's data caches: set-associative, least recently used, write-allocate, with stream detection.
 *
 * A miss whose neighbour line was missed a little earlier belongs to a stream, which a hardware
 * prefetcher hides most of; the others pay the full latency. Both are counted.
 */
#ifndef EDGEOPT_CACHE_H
#define EDGEOPT_CACHE_H

#include <stdint.h>

#define LINE_BITS 6
#define LEVELS 3
#define MAX_WAYS 16
#define STREAMS 16

struct cache {
    uint64_t *tags; /* sets × ways, most recent first; 0 = empty */
    uint32_t sets, ways;
    uint32_t mask; /* sets - 1 when that selects a set, else 0 */
    uint64_t misses, stream_misses;
    uint64_t streams[STREAMS];
    uint32_t next_stream;
};

/* Returns 1 on a hit. Tags are line numbers plus one, so that 0 stays free for "empty". */
static inline int cache_lookup(struct cache *c, uint64_t line) {
    uint64_t *set = c->tags + (c->mask ? line & c->mask : line % c->sets) * c->ways;
    uint64_t tag = line + 1;
    if (set[0] == tag) return 1;
    uint32_t way = 1;
    while (way < c->ways && set[way] != tag) way++;
    int hit = way < c->ways;
    if (!hit) way = c->ways - 1;
    for (; way > 0; way--) set[way] = set[way - 1];
    set[0] = tag;
    return hit;
}

static inline void note_stream(struct cache *c, uint64_t line) {
    c->misses++;
    for (uint32_t i = 0; i < STREAMS; i++) {
        uint64_t step = line - c->streams[i];
        if (step == 1 || step == 2 || step == (uint64_t)-1 || step == (uint64_t)-2) {
            c->streams[i] = line;
            c->stream_misses++;
            return;
        }
    }
    c->streams[c->next_stream] = line;
    c->next_stream = (c->next_stream + 1) % STREAMS;
}

static inline void caches_access(struct cache *levels, uint64_t line) {
    for (int level = 0; level < LEVELS; level++) {
        if (levels[level].sets == 0) continue;
        if (cache_lookup(&levels[level], line)) return;
        note_stream(&levels[level], line);
    }
}

#endif
