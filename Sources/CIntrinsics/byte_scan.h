// SPDX-License-Identifier: Apache-2.0
#ifndef WEIR_BYTE_SCAN_H
#define WEIR_BYTE_SCAN_H

#include <stddef.h>

typedef unsigned char weir_bytes __attribute__((vector_size(16)));
typedef _Bool weir_bits __attribute__((ext_vector_type(16)));

static inline weir_bytes weir_load(const unsigned char *text) {
    weir_bytes bytes;
    __builtin_memcpy(&bytes, text, sizeof bytes);
    return bytes;
}

/// A mask of sixteen comparisons: bit N is set if comparison N is true.
#define WEIR_BITS(comparison) __extension__({ \
    weir_bits found = __builtin_convertvector((comparison), weir_bits); \
    unsigned short bits; \
    __builtin_memcpy(&bits, &found, sizeof bits); \
    (unsigned)bits; \
})

/// A mask of the bytes that are a newline, a carriage return or a NUL.
static inline unsigned weir_line_breaks(weir_bytes bytes) {
    return WEIR_BITS((bytes == '\n') | (bytes == '\r') | (bytes == '\0'));
}

/// The offset of the first newline, carriage return or NUL in `text`; `count` if there is none.
static inline size_t weir_line_break(const void *text, size_t count) {
    const unsigned char *bytes = (const unsigned char *)text;
    size_t start = 0;
    for (; count - start >= 2 * sizeof(weir_bytes); start += 2 * sizeof(weir_bytes)) {
        weir_bytes low = weir_load(bytes + start), high = weir_load(bytes + start + sizeof(weir_bytes));
        // All three are at most '\r'. Of other bytes that mail contains, so is only the tab.
        if (!WEIR_BITS(__builtin_elementwise_min(low, high) <= '\r')) continue;
        unsigned bits = weir_line_breaks(low) | weir_line_breaks(high) << sizeof(weir_bytes);
        if (bits) return start + (size_t)__builtin_ctz(bits);
    }
    for (; start < count; start++) {
        if (bytes[start] == '\n' || bytes[start] == '\r' || bytes[start] == '\0') break;
    }
    return start;
}

/// Whole lines: their length in bytes, and the number of carriage returns in them.
typedef struct {
    size_t length;
    size_t returns;
} weir_lines;

/// Masks of 64 bytes.
typedef struct {
    unsigned long long newlines, carriages, hyphens;
    _Bool has_nul;
} weir_marks;

static inline weir_marks weir_mark(const unsigned char *bytes) {
    weir_marks marks = {0, 0, 0, 0};
    weir_bytes low = weir_load(bytes);
    for (int part = 0; part < 4; part++) {
        weir_bytes block = weir_load(bytes + 16 * part);
        marks.newlines |= (unsigned long long)WEIR_BITS(block == '\n') << 16 * part;
        marks.carriages |= (unsigned long long)WEIR_BITS(block == '\r') << 16 * part;
        marks.hyphens |= (unsigned long long)WEIR_BITS(block == '-') << 16 * part;
        low = __builtin_elementwise_min(low, block);
    }
    marks.has_nul = WEIR_BITS(low == 0) != 0;
    return marks;
}

/// Finds the plain lines at the start of `text`, in blocks of 64 bytes. A plain line has no NUL, no carriage return
/// except directly before its newline, and at most `longest` bytes with its line end; if `hyphens` is set, it does not
/// begin with a hyphen. The rest of `text` may begin with more plain lines.
#define WEIR_PLAIN_LINES(mark) \
    const unsigned char *bytes = (const unsigned char *)text; \
    weir_lines lines = {0, 0}; \
    /* From 128 on, no line within two blocks is too long. */ \
    if (longest < 128) return lines; \
    size_t returns = 0; \
    /* Whether the last byte of the previous block was a newline, and whether it was a carriage return. */ \
    unsigned long long begins = 1, open = 0; \
    for (size_t start = 0; count - start >= 64; start += 64) { \
        weir_marks marks = mark(bytes + start); \
        /* A carriage return must be followed by a newline. */ \
        unsigned long long due = marks.carriages << 1 | open, starts = marks.newlines << 1 | begins; \
        if ((due & ~marks.newlines) || marks.has_nul || (hyphens && (starts & marks.hyphens))) break; \
        begins = marks.newlines >> 63; \
        open = marks.carriages >> 63; \
        returns += (size_t)__builtin_popcountll(marks.carriages); \
        if (marks.newlines) { \
            lines.length = start + 64 - (size_t)__builtin_clzll(marks.newlines); \
            lines.returns = returns - open; \
        } else if (start + 128 - lines.length > longest) { \
            /* With the next block, the line may become too long. */ \
            break; \
        } \
    } \
    return lines;

static inline weir_lines weir_plain_lines_16(const void *text, size_t count, size_t longest, _Bool hyphens) {
    WEIR_PLAIN_LINES(weir_mark)
}

#if defined(__x86_64__)
#include <immintrin.h>
#define WEIR_AVX2 __attribute__((target("avx2,bmi,bmi2,lzcnt,popcnt")))
/// Every processor with AVX2 and BMI2 has the other extensions, too.
#define WEIR_HAS_AVX2 (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2"))

static inline WEIR_AVX2 unsigned long long weir_mark_32(__m256i low, __m256i high, char byte) {
    __m256i wanted = _mm256_set1_epi8(byte);
    return (unsigned)_mm256_movemask_epi8(_mm256_cmpeq_epi8(low, wanted))
        | (unsigned long long)(unsigned)_mm256_movemask_epi8(_mm256_cmpeq_epi8(high, wanted)) << 32;
}

static inline WEIR_AVX2 weir_marks weir_mark_64(const unsigned char *bytes) {
    __m256i low = _mm256_loadu_si256((const __m256i *)bytes), high = _mm256_loadu_si256((const __m256i *)(bytes + 32));
    __m256i least = _mm256_min_epu8(low, high);
    weir_marks marks = {
        weir_mark_32(low, high, '\n'), weir_mark_32(low, high, '\r'), weir_mark_32(low, high, '-'),
        _mm256_movemask_epi8(_mm256_cmpeq_epi8(least, _mm256_setzero_si256())) != 0};
    return marks;
}

static WEIR_AVX2 weir_lines weir_plain_lines_32(const void *text, size_t count, size_t longest, _Bool hyphens) {
    WEIR_PLAIN_LINES(weir_mark_64)
}

static inline weir_lines weir_plain_lines(const void *text, size_t count, size_t longest, _Bool hyphens) {
    return WEIR_HAS_AVX2
        ? weir_plain_lines_32(text, count, longest, hyphens) : weir_plain_lines_16(text, count, longest, hyphens);
}
#else
static inline weir_lines weir_plain_lines(const void *text, size_t count, size_t longest, _Bool hyphens) {
    return weir_plain_lines_16(text, count, longest, hyphens);
}
#endif

/// The offset of the first byte that can't be part of a header name: a colon, or any byte that is not printable ASCII;
/// `count` if there is none.
static inline size_t weir_header_name_end(const void *text, size_t count) {
    const unsigned char *bytes = (const unsigned char *)text;
    size_t start = 0;
    for (; count - start >= sizeof(weir_bytes); start += sizeof(weir_bytes)) {
        weir_bytes name = weir_load(bytes + start);
        unsigned bits = WEIR_BITS((name == ':') | (name - '!' > '~' - '!'));
        if (bits) return start + (size_t)__builtin_ctz(bits);
    }
    for (; start < count; start++) {
        if (bytes[start] == ':' || bytes[start] < '!' || bytes[start] > '~') break;
    }
    return start;
}

#endif
