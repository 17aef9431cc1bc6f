// SPDX-License-Identifier: Apache-2.0
#ifndef WEIR_POLICY_LINES_H
#define WEIR_POLICY_LINES_H

#include "byte_scan.h"

/// The longest name that can be expected, in bytes with its `=`.
#define WEIR_LONGEST_NAME 31

/// The expected name in one line of a request.
typedef struct {
    /// The name with its `=`. Bytes from `length` on are ignored.
    unsigned char name[WEIR_LONGEST_NAME + 1];
    /// The length of the name with its `=`; 0 if it is longer than WEIR_LONGEST_NAME.
    size_t length;
    /// The index of its value; -1 if the value is not needed.
    ptrdiff_t index;
} weir_policy_line;

/// The range of a value in its request.
typedef struct {
    ptrdiff_t start, end;
} weir_policy_value;

/// Masks of the first 32 bytes of a line: bytes that equal the expected name's, and bytes that end the line.
typedef struct {
    unsigned same, ends;
} weir_line_start;

static inline weir_line_start weir_line_start_16(const unsigned char *text, const unsigned char *name) {
    weir_bytes low = weir_load(text), high = weir_load(text + 16);
    weir_line_start start = {
        WEIR_BITS(low == weir_load(name)) | WEIR_BITS(high == weir_load(name + 16)) << 16,
        WEIR_BITS((low == '\n') | (low == '\0')) | WEIR_BITS((high == '\n') | (high == '\0')) << 16};
    return start;
}

/// The offset of the first newline or NUL in `text`; `count` if there is none.
static inline size_t weir_policy_line_end(const unsigned char *text, size_t count) {
    size_t start = 0;
    for (; count - start >= sizeof(weir_bytes); start += sizeof(weir_bytes)) {
        weir_bytes line = weir_load(text + start);
        unsigned bits = WEIR_BITS((line == '\n') | (line == '\0'));
        if (bits) return start + (size_t)__builtin_ctz(bits);
    }
    for (; start < count; start++) {
        if (text[start] == '\n' || text[start] == '\0') break;
    }
    return start;
}

/// Parses a request that has the expected lines, or the first few of them, and sets the ranges of their values.
///
/// Returns the length of the request with its empty line. Returns 0 if it has other lines, is incomplete, or has a NUL;
/// some values may then be set.
#define WEIR_POLICY_REQUEST(line_start) \
    const unsigned char *bytes = (const unsigned char *)text; \
    size_t position = 0; \
    for (size_t line = 0; position < count; line++) { \
        if (bytes[position] == '\n') return position + 1; \
        if (line == lines || expected[line].length == 0) return 0; \
        const unsigned char *name = expected[line].name; \
        size_t length = expected[line].length, left = count - position, end; \
        if (left >= sizeof expected->name) { \
            weir_line_start start = line_start(bytes + position, name); \
            unsigned value = ~0u << length; \
            if ((start.same | value) != ~0u) return 0; \
            end = start.ends & value ? (size_t)__builtin_ctz(start.ends & value) \
                : sizeof expected->name + weir_policy_line_end(bytes + position + sizeof expected->name, left - sizeof expected->name); \
        } else { \
            if (left < length || __builtin_memcmp(bytes + position, name, length) != 0) return 0; \
            end = length + weir_policy_line_end(bytes + position + length, left - length); \
        } \
        if (end >= left || bytes[position + end] != '\n') return 0; \
        if (expected[line].index >= 0) { \
            weir_policy_value found = {(ptrdiff_t)(position + length), (ptrdiff_t)(position + end)}; \
            values[expected[line].index] = found; \
        } \
        position += end + 1; \
    } \
    return 0;

static inline size_t weir_policy_request_16(
    const void *text, size_t count, const weir_policy_line *expected, size_t lines, weir_policy_value *values) {
    WEIR_POLICY_REQUEST(weir_line_start_16)
}

#if defined(__x86_64__)
static inline WEIR_AVX2 weir_line_start weir_line_start_32(const unsigned char *text, const unsigned char *name) {
    __m256i line = _mm256_loadu_si256((const __m256i *)text), wanted = _mm256_loadu_si256((const __m256i *)name);
    __m256i newlines = _mm256_cmpeq_epi8(line, _mm256_set1_epi8('\n')), nuls = _mm256_cmpeq_epi8(line, _mm256_setzero_si256());
    weir_line_start start = {
        (unsigned)_mm256_movemask_epi8(_mm256_cmpeq_epi8(line, wanted)),
        (unsigned)_mm256_movemask_epi8(_mm256_or_si256(newlines, nuls))};
    return start;
}

static WEIR_AVX2 size_t weir_policy_request_32(
    const void *text, size_t count, const weir_policy_line *expected, size_t lines, weir_policy_value *values) {
    WEIR_POLICY_REQUEST(weir_line_start_32)
}

static inline size_t weir_policy_request(
    const void *text, size_t count, const weir_policy_line *expected, size_t lines, weir_policy_value *values) {
    return WEIR_HAS_AVX2 ? weir_policy_request_32(text, count, expected, lines, values)
        : weir_policy_request_16(text, count, expected, lines, values);
}
#else
static inline size_t weir_policy_request(
    const void *text, size_t count, const weir_policy_line *expected, size_t lines, weir_policy_value *values) {
    return weir_policy_request_16(text, count, expected, lines, values);
}
#endif

#endif
