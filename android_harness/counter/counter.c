/* A QEMU TCG plugin that counts what one inference executes.
 *
 * The runner marks the beginning and the end of each inference with a system call number that Linux does
 * not use (runner/common.h). Between two marks this plugin counts executed instructions by class,
 * multiply-accumulates by kind, bytes moved and misses of a simulated cache hierarchy, and writes one
 * line of JSON for each phase: "load" for everything before the first mark, "run" for each inference.
 * With cache_from=N bytes and misses are counted from run N on; one run before the one that is read fills
 * the caches, and the ones before it need not pay for the simulation.
 * With per_op=1 each reading of the clock in between closes a section too: the runtimes read the clock
 * around every operator when they profile, and qemu-user passes those readings through a system call.
 *
 * API version 1 of QEMU's plugins, declared here because Debian ships no header for it.
 */
#include <stddef.h>
#include <stdint.h>

#include "cache.h"
#include "decode.h"

/* ---- what QEMU offers (docs/devel/tcg-plugins, version 1) ---- */
#define EXPORT __attribute__((visibility("default")))
typedef uint64_t qemu_plugin_id_t;
typedef uint32_t qemu_plugin_meminfo_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum { PLUGIN_INLINE_ADD_U64 = 0 };
enum { PLUGIN_CB_NO_REGS = 0 };
enum { PLUGIN_MEM_RW = 3 };
extern void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
extern void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int op, void *ptr, uint64_t imm);
extern void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *,
                                             void (*)(unsigned, qemu_plugin_meminfo_t, uint64_t, void *),
                                             int flags, int rw, void *userdata);
extern void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t,
                                                 void (*)(qemu_plugin_id_t, unsigned, int64_t, uint64_t, uint64_t,
                                                          uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t));
extern void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, void *), void *userdata);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
extern const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
extern unsigned qemu_plugin_mem_size_shift(qemu_plugin_meminfo_t);
extern int qemu_plugin_mem_is_store(qemu_plugin_meminfo_t);

/* ---- what QEMU's own process lends us of the C library ---- */
extern void *calloc(size_t, size_t);
extern void *fopen(const char *, const char *);
extern int fprintf(void *, const char *, ...);
extern int fclose(void *);
extern int strncmp(const char *, const char *, size_t);
extern long strtol(const char *, char **, int);

EXPORT int qemu_plugin_version = 1;

#define MARKER 0xED6E
#define MARK_BEGIN 1
#define MARK_END 2
#define SYS_CLOCK_GETTIME 113

static uint64_t counts[CLASS_COUNT];
static uint64_t macs[MAC_KINDS];
static uint64_t bytes_loaded, bytes_stored, memory_accesses;
static struct cache levels[LEVELS];

struct snapshot {
    uint64_t counts[CLASS_COUNT];
    uint64_t macs[MAC_KINDS];
    uint64_t bytes_loaded, bytes_stored, memory_accesses;
    uint64_t misses[LEVELS], stream_misses[LEVELS];
};

static struct snapshot last;
static void *out;
static int per_op, inside, section;
static int run_index = -1; /* -1 until the first mark */
static int cache_from;     /* the first run whose accesses go through the simulated caches */

static void take(struct snapshot *s) {
    for (int i = 0; i < CLASS_COUNT; i++) s->counts[i] = counts[i];
    for (int i = 0; i < MAC_KINDS; i++) s->macs[i] = macs[i];
    s->bytes_loaded = bytes_loaded;
    s->bytes_stored = bytes_stored;
    s->memory_accesses = memory_accesses;
    for (int i = 0; i < LEVELS; i++) {
        s->misses[i] = levels[i].misses;
        s->stream_misses[i] = levels[i].stream_misses;
    }
}

static void write_phase(const char *phase, int index, const struct snapshot *from, const struct snapshot *to) {
    uint64_t total = 0;
    for (int i = 0; i < CLASS_COUNT; i++) total += to->counts[i] - from->counts[i];
    fprintf(out, "{\"phase\": \"%s\", \"run\": %d, \"section\": %d, \"instructions\": %llu, \"classes\": {",
            phase, run_index, index, (unsigned long long)total);
    const char *comma = "";
    for (int i = 0; i < CLASS_COUNT; i++) {
        uint64_t n = to->counts[i] - from->counts[i];
        if (n == 0) continue;
        fprintf(out, "%s\"%s\": %llu", comma, class_names[i], (unsigned long long)n);
        comma = ", ";
    }
    fprintf(out, "}, \"macs\": {\"fp32\": %llu, \"fp16\": %llu, \"int8\": %llu, \"int16\": %llu}",
            (unsigned long long)(to->macs[MAC_FP32] - from->macs[MAC_FP32]),
            (unsigned long long)(to->macs[MAC_FP16] - from->macs[MAC_FP16]),
            (unsigned long long)(to->macs[MAC_INT8] - from->macs[MAC_INT8]),
            (unsigned long long)(to->macs[MAC_INT16] - from->macs[MAC_INT16]));
    fprintf(out, ", \"bytes_loaded\": %llu, \"bytes_stored\": %llu, \"memory_accesses\": %llu",
            (unsigned long long)(to->bytes_loaded - from->bytes_loaded),
            (unsigned long long)(to->bytes_stored - from->bytes_stored),
            (unsigned long long)(to->memory_accesses - from->memory_accesses));
    static const char *const names[LEVELS] = {"l1d", "l2", "l3"};
    for (int i = 0; i < LEVELS; i++) {
        if (levels[i].sets == 0) continue;
        fprintf(out, ", \"%s_misses\": %llu, \"%s_stream_misses\": %llu", names[i],
                (unsigned long long)(to->misses[i] - from->misses[i]), names[i],
                (unsigned long long)(to->stream_misses[i] - from->stream_misses[i]));
    }
    fprintf(out, "}\n");
}

static void close_section(const char *phase, int index) {
    struct snapshot now;
    take(&now);
    write_phase(phase, index, &last, &now);
    last = now;
}

static struct snapshot run_start;

static void on_syscall(qemu_plugin_id_t id, unsigned vcpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3,
                       uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8) {
    (void)id, (void)vcpu, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
    if (number == MARKER && a1 == MARK_BEGIN) {
        if (a2 == 0) close_section("load", 0);
        /* Streams seen earlier must not colour this inference: counts belong to it alone. */
        for (int i = 0; i < LEVELS; i++)
            for (int j = 0; j < STREAMS; j++) levels[i].streams[j] = (uint64_t)-16;
        take(&last);
        run_start = last;
        run_index = (int)a2;
        section = 0;
        inside = 1;
    } else if (number == MARKER && a1 == MARK_END) {
        if (per_op) close_section("section", section);
        struct snapshot now;
        take(&now);
        write_phase("run", 0, &run_start, &now);
        last = now;
        inside = 0;
    } else if (number == SYS_CLOCK_GETTIME && per_op && inside) {
        close_section("section", section++);
    }
}

static uint64_t last_line = (uint64_t)-1;

static void on_memory(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *userdata) {
    (void)vcpu, (void)userdata;
    if (run_index < cache_from) return;
    uint64_t size = 1ull << qemu_plugin_mem_size_shift(info);
    if (qemu_plugin_mem_is_store(info)) bytes_stored += size;
    else bytes_loaded += size;
    memory_accesses++;
    uint64_t first = address >> LINE_BITS, end = (address + size - 1) >> LINE_BITS;
    if (first == last_line && end == first) return; /* the most recent line is a hit at level one */
    for (uint64_t line = first; line <= end; line++) caches_access(levels, line);
    last_line = end;
}

static int touches_memory(enum insn_class cls) {
    return (cls >= C_load && cls <= C_atomic) || (cls >= C_load_simd && cls <= C_store_simd_multi) ||
           cls == C_sve_load || cls == C_sve_store || cls == C_system;
}

static void on_translate(qemu_plugin_id_t id, struct qemu_plugin_tb *tb) {
    (void)id;
    uint64_t block[CLASS_COUNT] = {0}, block_macs[MAC_KINDS] = {0};
    size_t n = qemu_plugin_tb_n_insns(tb);
    for (size_t i = 0; i < n; i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        const uint8_t *data = qemu_plugin_insn_data(insn);
        uint32_t word = (uint32_t)data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16 | (uint32_t)data[3] << 24;
        struct decoded d = decode(word);
        block[d.cls]++;
        block_macs[d.mac] += d.macs;
        if (touches_memory(d.cls))
            qemu_plugin_register_vcpu_mem_cb(insn, on_memory, PLUGIN_CB_NO_REGS, PLUGIN_MEM_RW, 0);
    }
    for (int i = 0; i < CLASS_COUNT; i++) {
        if (block[i]) qemu_plugin_register_vcpu_tb_exec_inline(tb, PLUGIN_INLINE_ADD_U64, &counts[i], block[i]);
    }
    for (int i = 1; i < MAC_KINDS; i++) {
        if (block_macs[i]) qemu_plugin_register_vcpu_tb_exec_inline(tb, PLUGIN_INLINE_ADD_U64, &macs[i], block_macs[i]);
    }
}

static void on_exit_cb(qemu_plugin_id_t id, void *userdata) {
    (void)id, (void)userdata;
    fclose(out);
}

/* "l1d=32:4" is 32 KiB in 4 ways. */
static int set_up_cache(struct cache *c, const char *text) {
    char *end = 0;
    long kib = strtol(text, &end, 10);
    if (end == text || *end != ':') return -1;
    long ways = strtol(end + 1, &end, 10);
    if (kib <= 0 || ways <= 0 || ways > MAX_WAYS) return -1;
    c->ways = (uint32_t)ways;
    c->sets = (uint32_t)((uint64_t)kib * 1024 / ((uint64_t)ways << LINE_BITS));
    if (c->sets == 0) return -1;
    c->mask = (c->sets & (c->sets - 1)) == 0 ? c->sets - 1 : 0;
    c->tags = calloc((size_t)c->sets * c->ways, sizeof *c->tags);
    return c->tags ? 0 : -1;
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv) {
    (void)info;
    for (int i = 0; i < argc; i++) {
        const char *arg = argv[i];
        int wrong = 0;
        if (!strncmp(arg, "out=", 4)) wrong = !(out = fopen(arg + 4, "w"));
        else if (!strncmp(arg, "l1d=", 4)) wrong = set_up_cache(&levels[0], arg + 4);
        else if (!strncmp(arg, "l2=", 3)) wrong = set_up_cache(&levels[1], arg + 3);
        else if (!strncmp(arg, "l3=", 3)) wrong = set_up_cache(&levels[2], arg + 3);
        else if (!strncmp(arg, "cache_from=", 11)) cache_from = (int)strtol(arg + 11, 0, 10);
        else if (!strncmp(arg, "per_op=", 7)) per_op = arg[7] == '1';
        else wrong = 1;
        if (wrong) return -1;
    }
    if (!out) return -1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translate);
    qemu_plugin_register_vcpu_syscall_cb(id, on_syscall);
    qemu_plugin_register_atexit_cb(id, on_exit_cb, 0);
    return 0;
}
