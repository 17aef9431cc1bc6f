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
