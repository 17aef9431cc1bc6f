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

/// A bit for each of sixteen comparisons that holds.
#define WEIR_BITS(comparison) __extension__({ \
    weir_bits found = __builtin_convertvector((comparison), weir_bits); \
    unsigned short bits; \
    __builtin_memcpy(&bits, &found, sizeof bits); \
    (unsigned)bits; \
})

/// A bit for each of the sixteen bytes that is a newline, a carriage return or a NUL.
static inline unsigned weir_line_breaks(weir_bytes bytes) {
    return WEIR_BITS((bytes == '\n') | (bytes == '\r') | (bytes == '\0'));
}

/// Where the first newline, carriage return or NUL of `text` is; `count` where there is none.
static inline size_t weir_line_break(const void *text, size_t count) {
    const unsigned char *bytes = (const unsigned char *)text;
    size_t start = 0;
    for (; count - start >= 2 * sizeof(weir_bytes); start += 2 * sizeof(weir_bytes)) {
        weir_bytes low = weir_load(bytes + start), high = weir_load(bytes + start + sizeof(weir_bytes));
        // All three, and little else that mail has but tabs, are the carriage return or less.
        if (!WEIR_BITS(__builtin_elementwise_min(low, high) <= '\r')) continue;
        unsigned bits = weir_line_breaks(low) | weir_line_breaks(high) << sizeof(weir_bytes);
        if (bits) return start + (size_t)__builtin_ctz(bits);
    }
    for (; start < count; start++) {
        if (bytes[start] == '\n' || bytes[start] == '\r' || bytes[start] == '\0') break;
    }
    return start;
}

/// Whole lines: how many bytes they take up, and how many of these are carriage returns.
typedef struct {
    size_t length;
    size_t returns;
} weir_lines;

/// What 64 bytes hold, a bit for each.
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

/// The lines at the start of `text` that need no closer look, as many as 64 bytes at a time show: no NUL, no carriage
/// return but one before a newline, no line of more than `longest` bytes with its end, and none that begins with a hyphen
/// where `hyphens` says so. What is left may begin with such lines as well.
#define WEIR_PLAIN_LINES(mark) \
    const unsigned char *bytes = (const unsigned char *)text; \
    weir_lines lines = {0, 0}; \
    /* No line in two blocks is too long then. */ \
    if (longest < 128) return lines; \
    size_t returns = 0; \
    /* Of the block before: its last byte ended a line, or is a carriage return. */ \
    unsigned long long begins = 1, open = 0; \
    for (size_t start = 0; count - start >= 64; start += 64) { \
        weir_marks marks = mark(bytes + start); \
        /* What stands behind a carriage return must be a newline. */ \
        unsigned long long due = marks.carriages << 1 | open, starts = marks.newlines << 1 | begins; \
        if ((due & ~marks.newlines) || marks.has_nul || (hyphens && (starts & marks.hyphens))) break; \
        begins = marks.newlines >> 63; \
        open = marks.carriages >> 63; \
        returns += (size_t)__builtin_popcountll(marks.carriages); \
        if (marks.newlines) { \
            lines.length = start + 64 - (size_t)__builtin_clzll(marks.newlines); \
            lines.returns = returns - open; \
        } else if (start + 128 - lines.length > longest) { \
            /* It may be too long when its end comes. */ \
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
/// Every processor with AVX2 and BMI2 has the others.
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

/// Where the first byte of `text` is that is no part of a header name: a colon, or what is not printable ASCII; `count`
/// where there is none.
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
