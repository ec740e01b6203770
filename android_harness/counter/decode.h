/* What an A64 instruction is, for counting: its class and how many multiply-accumulates it does.
 *
 * The fields are those of the "Top-level encodings for A64" in the Arm Architecture Reference Manual
 * (DDI 0487, chapter C4). A decoder for classes, not for operands.
 */
#ifndef EDGEOPT_DECODE_H
#define EDGEOPT_DECODE_H

#include <stdint.h>

#define CLASSES(X)                                                                                   \
    X(int_alu) X(int_mul) X(int_div) X(branch) X(system)                                             \
    X(load) X(load_pair) X(store) X(store_pair) X(atomic) X(prefetch)                                \
    X(load_simd) X(load_simd_q) X(load_simd_pair) X(load_simd_multi) X(load_simd_lane)               \
    X(store_simd) X(store_simd_q) X(store_simd_pair) X(store_simd_multi)                             \
    X(fp_scalar) X(fp_scalar_fma) X(fp_div_sqrt) X(fp_int_move)                                      \
    X(fp32_fma) X(fp32_fma_d) X(fp32_arith) X(fp64_fma) X(fp16_fma) X(fp16_arith) X(bf16_mac)        \
    X(int8_widening_mac) X(int16_widening_mac) X(simd_mul) X(dotprod) X(dotprod_d) X(i8mm)           \
    X(simd_int) X(simd_shift) X(simd_permute) X(simd_convert) X(simd_reduce) X(crypto)               \
    X(sve_load) X(sve_store) X(sve_fp_mac) X(sve_int_mac) X(sve_other) X(unknown)

#define X(name) C_##name,
enum insn_class { CLASSES(X) CLASS_COUNT };
#undef X

#define X(name) #name,
static const char *const class_names[] = {CLASSES(X)};
#undef X

enum mac_kind { MAC_NONE, MAC_FP32, MAC_FP16, MAC_INT8, MAC_INT16, MAC_KINDS };

struct decoded {
    enum insn_class cls;
    enum mac_kind mac;
    unsigned macs; /* multiply-accumulates of one execution; SVE at a 128-bit vector */
};

static inline uint32_t bits(uint32_t w, int high, int low) {
    return (w >> low) & ((1u << (high - low + 1)) - 1u);
}
static inline int is(uint32_t w, uint32_t mask, uint32_t value) { return (w & mask) == value; }

static struct decoded plain(enum insn_class cls) { return (struct decoded){cls, MAC_NONE, 0}; }
static struct decoded with_macs(enum insn_class cls, enum mac_kind kind, unsigned macs) {
    return (struct decoded){cls, kind, macs};
}

/* ---- loads and stores: op0 = x1x0 ---- */

static struct decoded decode_memory(uint32_t w) {
    int simd = bits(w, 26, 26);
    int load = bits(w, 22, 22);
    if (is(w, 0xBE000000, 0x0C000000)) { /* ld1..ld4, st1..st4: whole registers or one lane */
        int lane = bits(w, 24, 24);
        if (!load) return plain(lane ? C_store_simd : C_store_simd_multi);
        return plain(lane ? C_load_simd_lane : C_load_simd_multi);
    }
    if (is(w, 0x3F000000, 0x08000000)) return plain(C_atomic); /* exclusive, acquire/release, cas */
    if (bits(w, 29, 27) == 3 && bits(w, 24, 24) == 0) {        /* literal */
        uint32_t size = bits(w, 31, 30);
        if (simd) return plain(size == 2 ? C_load_simd_q : C_load_simd);
        return plain(size == 3 ? C_prefetch : C_load);
    }
    if (bits(w, 29, 27) == 5) { /* pair */
        if (!simd) return plain(load ? C_load_pair : C_store_pair);
        return plain(load ? C_load_simd_pair : C_store_simd_pair);
    }
    if (bits(w, 29, 27) == 7) { /* one register */
        uint32_t opc = bits(w, 23, 22), size = bits(w, 31, 30);
        int reg_offset = bits(w, 24, 24) == 0 && bits(w, 21, 21) == 1;
        if (reg_offset && bits(w, 11, 10) == 0 && !simd) return plain(C_atomic);
        if (simd) {
            int quad = size == 0 && opc >= 2;
            if (opc & 1) return plain(quad ? C_load_simd_q : C_load_simd);
            return plain(quad ? C_store_simd_q : C_store_simd);
        }
        if (opc == 0) return plain(C_store);
        if (size == 3 && opc == 2) return plain(C_prefetch);
        return plain(C_load);
    }
    return plain(load ? C_load : C_store);
}

/* ---- Advanced SIMD ---- */

static struct decoded fp_mac(uint32_t w, int size) { /* size: 0 = fp16, 2 = fp32, 3 = fp64 */
    int q = bits(w, 30, 30);
    if (size == 0) return with_macs(C_fp16_fma, MAC_FP16, q ? 8 : 4);
    if (size == 3) return plain(C_fp64_fma);
    return with_macs(q ? C_fp32_fma : C_fp32_fma_d, MAC_FP32, q ? 4 : 2);
}

static struct decoded widening(uint32_t size) { /* elements: 0 = 8 bit (8 lanes), 1 = 16 bit (4 lanes) */
    if (size == 0) return with_macs(C_int8_widening_mac, MAC_INT8, 8);
    if (size == 1) return with_macs(C_int16_widening_mac, MAC_INT16, 4);
    return plain(C_simd_mul);
}

static struct decoded dot(uint32_t w) {
    int q = bits(w, 30, 30);
    return with_macs(q ? C_dotprod : C_dotprod_d, MAC_INT8, q ? 16 : 8);
}

static struct decoded three_same(uint32_t w) {
    uint32_t u = bits(w, 29, 29), size = bits(w, 23, 22), opcode = bits(w, 15, 11);
    if (opcode >= 0x18) {
        if (opcode == 0x19 && !u) return fp_mac(w, (size & 1) ? 3 : 2); /* fmla, fmls */
        if (opcode == 0x1D && !u && size >= 2) return plain(C_fp32_arith); /* fmlsl */
        if (opcode == 0x1F && u) return plain(C_fp_div_sqrt);            /* fdiv */
        if (opcode == 0x03) return plain(C_simd_int);
        return plain(C_fp32_arith);
    }
    if (opcode == 0x12 || opcode == 0x13 || opcode == 0x16) return plain(C_simd_mul);
    if (opcode == 0x08 || opcode == 0x09 || opcode == 0x0A || opcode == 0x0B) return plain(C_simd_shift);
    if (opcode == 0x14 || opcode == 0x15 || opcode == 0x17) return plain(C_simd_int);
    return plain(C_simd_int);
}

static struct decoded three_extra(uint32_t w) {
    uint32_t u = bits(w, 29, 29), size = bits(w, 23, 22), opcode = bits(w, 14, 11);
    if (size == 2 && opcode == 2) return dot(w);          /* sdot, udot */
    if (size == 2 && opcode == 3 && !u) return dot(w);    /* usdot */
    if (size == 2 && (opcode == 4 || opcode == 5)) return with_macs(C_i8mm, MAC_INT8, 32);
    if (u && (opcode == 15 || opcode == 13)) return plain(C_bf16_mac);
    if (opcode <= 1) return plain(C_simd_mul);            /* sqrdmlah */
    return plain(C_fp32_arith);                           /* fcmla, fcadd */
}

static struct decoded by_element(uint32_t w) {
    uint32_t u = bits(w, 29, 29), size = bits(w, 23, 22), opcode = bits(w, 15, 12);
    switch (opcode) {
    case 0x1: case 0x5: /* fmla, fmls */
        if (u) break;
        return fp_mac(w, size == 0 ? 0 : (int)size);
    case 0x9: return plain(size == 0 ? C_fp16_arith : C_fp32_arith); /* fmul, fmulx */
    case 0x2: case 0x6: case 0xA: return widening(size);             /* smlal, smlsl, smull */
    case 0x3: case 0x7: case 0xB: return plain(C_simd_mul);          /* sqdmlal ... */
    case 0xE: return dot(w);
    case 0xF:
        if (u) return plain(C_simd_mul);
        if (size == 0 || size == 2) return dot(w); /* sudot, usdot */
        return plain(C_bf16_mac);
    case 0x0: case 0x4: case 0x8: case 0xC: case 0xD: return plain(C_simd_mul);
    default: break;
    }
    return plain(C_simd_mul);
}

static struct decoded two_misc(uint32_t w) {
    uint32_t u = bits(w, 29, 29), size = bits(w, 23, 22), opcode = bits(w, 16, 12);
    if (opcode == 0x12 || opcode == 0x14 || (opcode == 0x13 && u)) return plain(C_simd_shift); /* narrow */
    if (opcode == 0x16 || opcode == 0x17) return plain(C_simd_convert);
    if (opcode >= 0x18) {
        if (opcode == 0x1F && size >= 2) return plain(C_fp_div_sqrt);   /* fsqrt */
        if (opcode == 0x1D && size >= 2) return plain(C_fp32_arith);    /* frecpe, frsqrte */
        return plain(C_simd_convert);
    }
    if (opcode >= 0x0C && opcode <= 0x0F) return plain(C_fp32_arith);   /* fcmgt #0, fabs, fneg */
    if (opcode <= 0x01) return plain(C_simd_permute);                   /* rev */
    return plain(C_simd_int);
}

static struct decoded decode_vector(uint32_t w) {
    if (is(w, 0xBF208C00, 0x0E000000) || is(w, 0xBF208C00, 0x0E000800)) return plain(C_simd_permute);
    if (is(w, 0xBFE08400, 0x2E000000)) return plain(C_simd_permute);                     /* ext */
    if (is(w, 0x9FE08400, 0x0E000400)) {                                                 /* copy */
        uint32_t op = bits(w, 14, 11);
        int moves_general = !bits(w, 29, 29) && (op == 1 || op == 3 || op == 5 || op == 7);
        return plain(moves_general ? C_fp_int_move : C_simd_permute);
    }
    if (is(w, 0x9F60C400, 0x0E400400)) {                                                 /* fp16 */
        uint32_t u = bits(w, 29, 29), opcode = bits(w, 13, 11);
        if (opcode == 1 && !u) return fp_mac(w, 0);
        if (opcode == 7 && u) return plain(C_fp_div_sqrt);
        return plain(C_fp16_arith);
    }
    if (is(w, 0x9F208400, 0x0E008400)) return three_extra(w);
    if (is(w, 0x9F3E0C00, 0x0E200800) || is(w, 0x9F7E0C00, 0x0E780800)) return two_misc(w);
    if (is(w, 0x9F3E0C00, 0x0E300800)) return plain(C_simd_reduce);
    if (is(w, 0x9F200C00, 0x0E200000)) {                                                 /* widening */
        uint32_t opcode = bits(w, 15, 12);
        if (opcode == 8 || opcode == 10 || opcode == 12) return widening(bits(w, 23, 22));
        if (opcode == 9 || opcode == 11 || opcode == 13 || opcode == 14) return plain(C_simd_mul);
        return plain(C_simd_int);
    }
    if (is(w, 0x9F200400, 0x0E200400)) return three_same(w);
    if (is(w, 0x9F000400, 0x0F000000)) return by_element(w);
    if (is(w, 0x9F000400, 0x0F000400)) {                                                 /* immediate */
        if (bits(w, 22, 19) == 0 && bits(w, 23, 23) == 0) return plain(C_simd_int);      /* movi */
        uint32_t opcode = bits(w, 15, 11);
        return plain(opcode >= 0x1C ? C_simd_convert : C_simd_shift);
    }
    return plain(C_simd_int);
}

static struct decoded decode_fp_simd(uint32_t w) {
    if (is(w, 0x5F000000, 0x1F000000)) return with_macs(C_fp_scalar_fma, MAC_FP32, 1); /* fmadd */
    if (is(w, 0x5F200000, 0x1E200000)) {
        if (bits(w, 11, 10) == 0 && bits(w, 15, 12) == 0) {                            /* fp <-> integer */
            uint32_t rmode = bits(w, 20, 19), opcode = bits(w, 18, 16);
            return plain(rmode <= 1 && opcode >= 6 ? C_fp_int_move : C_simd_convert);
        }
        if (bits(w, 11, 10) == 2 && bits(w, 15, 12) == 1) return plain(C_fp_div_sqrt); /* fdiv */
        if (is(w, 0x00007C00, 0x00004000) && bits(w, 20, 15) == 3) return plain(C_fp_div_sqrt);
        return plain(C_fp_scalar);
    }
    if (is(w, 0x5F200000, 0x1E000000)) return plain(C_simd_convert);                   /* fixed point */
    if (is(w, 0xFF3E0C00, 0x4E280800) || is(w, 0xFF000000, 0xCE000000) || is(w, 0xFF3E0C00, 0x5E280800))
        return plain(C_crypto);
    if (is(w, 0xDF000000, 0x5E000000) || is(w, 0xDF000000, 0x5F000000)) {              /* scalar SIMD */
        if (is(w, 0xDF20FC00, 0x5E30D800) || is(w, 0xDF200400, 0x5E200400)) return plain(C_fp_scalar);
        if (is(w, 0xDFE08400, 0x5E000400)) return plain(C_simd_permute);               /* dup element */
        if (is(w, 0xDF000400, 0x5F000000)) {
            uint32_t opcode = bits(w, 15, 12);
            if ((opcode == 1 || opcode == 5) && bits(w, 23, 23)) return with_macs(C_fp_scalar_fma, MAC_FP32, 1);
            return plain(opcode == 9 ? C_fp_scalar : C_simd_mul);
        }
        return plain(C_simd_int);
    }
    return decode_vector(w);
}

/* ---- SVE ---- */

static struct decoded decode_sve(uint32_t w) {
    uint32_t op = bits(w, 31, 29);
    if (op == 4 || op == 5 || op == 6) return plain(C_sve_load);
    if (op == 7) return plain(C_sve_store);
    if (is(w, 0xFF208000, 0x65200000)) return with_macs(C_sve_fp_mac, MAC_FP32, 4); /* fmla, fmls, fmad */
    if (is(w, 0xFF20F800, 0x64200000)) return with_macs(C_sve_fp_mac, MAC_FP32, 4); /* fmla by element */
    if (is(w, 0xFF20F800, 0x44000000) || is(w, 0xFF20F800, 0x44200000))
        return with_macs(C_sve_int_mac, MAC_INT8, 16);                                /* sdot, udot */
    if (is(w, 0xFF20FC00, 0x45009800)) return with_macs(C_sve_int_mac, MAC_INT8, 32); /* smmla */
    return plain(C_sve_other);
}

/* ---- everything else ---- */

static struct decoded decode(uint32_t w) {
    uint32_t op0 = bits(w, 28, 25);
    if ((op0 & 0x5) == 0x4) return decode_memory(w);
    if ((op0 & 0x7) == 0x7) return decode_fp_simd(w);
    if (op0 == 0x2) return decode_sve(w);
    if ((op0 & 0xE) == 0xA) return plain(is(w, 0xFE000000, 0xD4000000) ? C_system : C_branch);
    if ((op0 & 0xE) == 0x8) return plain(C_int_alu);
    if ((op0 & 0x7) == 0x5) {
        if (is(w, 0x1F000000, 0x1B000000)) return plain(C_int_mul);
        if (is(w, 0x5FE0F800, 0x1AC00800)) return plain(C_int_div);
        return plain(C_int_alu);
    }
    return plain(C_unknown);
}

#endif
