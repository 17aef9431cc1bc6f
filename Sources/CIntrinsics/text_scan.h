// SPDX-License-Identifier: Apache-2.0
#ifndef WEIR_TEXT_SCAN_H
#define WEIR_TEXT_SCAN_H

#include "byte_scan.h"

/// How many bytes of a text were read and written, and how many carriage returns were left out.
typedef struct {
    size_t read, written, returns;
} weir_copied;

/// Masks of 64 bytes. `others` is what is neither printable ASCII nor a line end.
typedef struct {
    unsigned long long newlines, carriages, others;
} weir_text_marks;

static inline weir_text_marks weir_mark_text(const unsigned char *bytes) {
    weir_text_marks marks = {0, 0, 0};
    for (int part = 0; part < 4; part++) {
        weir_bytes block = weir_load(bytes + 16 * part);
        marks.newlines |= (unsigned long long)WEIR_BITS(block == '\n') << 16 * part;
        marks.carriages |= (unsigned long long)WEIR_BITS(block == '\r') << 16 * part;
        marks.others |= (unsigned long long)WEIR_BITS(block - ' ' > '~' - ' ') << 16 * part;
    }
    marks.others &= ~(marks.newlines | marks.carriages);
    return marks;
}

/// Copies the whole lines of printable ASCII at the start of `text`, each with one newline at its end, and without
/// empty lines. Looks at blocks of 64 bytes, so the rest may begin with more of them. Stops before a line of more than
/// `longest` bytes. `output` needs room for `count` bytes and 64 more.
#define WEIR_COPY_LINES(mark) \
    weir_copied copied = {0, 0, 0}; \
    /* Whether the last byte of the previous block was a carriage return. */ \
    unsigned long long open = 0; \
    for (size_t start = 0; count - start >= 64; start += 64) { \
        weir_text_marks marks = mark(text + start); \
        unsigned long long due = marks.carriages << 1 | open; \
        if (marks.others || (due & ~marks.newlines)) break; \
        open = marks.carriages >> 63; \
        for (unsigned long long left = marks.newlines; left; left &= left - 1) { \
            size_t end = start + (size_t)__builtin_ctzll(left), length = end - copied.read; \
            _Bool returns = length > 0 && text[end - 1] == '\r'; \
            length -= returns; \
            if (length > longest) return copied; \
            const unsigned char *line = text + copied.read; \
            unsigned char *output_line = output + copied.written; \
            /* Copies of 32 bytes are quickest, but must not read beyond the text. */ \
            if (count - copied.read >= length + 32) { \
                for (size_t done = 0; done < length; done += 32) { \
                    __builtin_memcpy(output_line + done, line + done, 32); \
                } \
            } else { \
                __builtin_memcpy(output_line, line, length); \
            } \
            output_line[length] = '\n'; \
            copied.written += length > 0 ? length + 1 : 0; \
            copied.returns += returns; \
            copied.read = end + 1; \
        } \
    } \
    return copied;

static inline weir_copied weir_copy_lines_16(
    const unsigned char *text, size_t count, unsigned char *output, size_t longest) {
    WEIR_COPY_LINES(weir_mark_text)
}

#define WEIR_HTML_STOPS(block) ((block == '<') | (block == '&') | (block < ' '))

/// Some text, and whether it is printable ASCII.
typedef struct {
    size_t length;
    _Bool is_ascii;
} weir_run;

/// Copies the bytes at the start of HTML that neither begin a tag or a reference nor are white space to be collapsed:
/// blanks that follow each other, and control characters. `output` needs room for `count` bytes and 32 more.
#define WEIR_COPY_HTML_TEXT(block_type, mask) \
    size_t start = 0; \
    /* Whether the byte before was a blank, and whether any byte was not printable. */ \
    unsigned blank = 0, others = 0; \
    for (; count - start >= sizeof(block_type); start += sizeof(block_type)) { \
        block_type block; \
        __builtin_memcpy(&block, text + start, sizeof block); \
        __builtin_memcpy(output + start, &block, sizeof block); \
        unsigned blanks = mask(block == ' '); \
        unsigned stops = mask(WEIR_HTML_STOPS(block)) | (blanks & (blanks << 1 | blank)); \
        unsigned other = mask(block > '~'); \
        if (stops) { \
            weir_run run = {start + (size_t)__builtin_ctz(stops), !(others | (other & (stops - 1) & ~stops))}; \
            return run; \
        } \
        blank = blanks >> (sizeof(block_type) - 1); \
        others |= other; \
    } \
    for (; start < count; start++) { \
        unsigned char byte = text[start]; \
        if (WEIR_HTML_STOPS(byte) || (byte == ' ' && blank)) break; \
        output[start] = byte; \
        blank = byte == ' '; \
        others |= byte > '~'; \
    } \
    weir_run run = {start, !others}; \
    return run;

static inline weir_run weir_copy_html_text_16(const unsigned char *text, size_t count, unsigned char *output) {
    WEIR_COPY_HTML_TEXT(weir_bytes, WEIR_BITS)
}

/// The bytes of a name as a number, in lower case, and how many they are.
typedef struct {
    unsigned long long key;
    size_t length;
} weir_name;

/// Reads a name of at most eight letters, digits and hyphens. The length is 0 for longer names, if there is none, and
/// near the end of the text.
static inline weir_name weir_short_name(const unsigned char *text, size_t count) {
    weir_name name = {0, 0};
    if (count < sizeof(weir_bytes)) return name;
    weir_bytes block = weir_load(text), lower = block | ' ';
    unsigned letters = WEIR_BITS(lower - 'a' < 26);
    unsigned length = (unsigned)__builtin_ctz(~(letters | WEIR_BITS((block - '0' < 10) | (block == '-'))));
    if (!(letters & 1) || length > sizeof name.key) return name;
    __builtin_memcpy(&name.key, &lower, sizeof name.key);
    name.key = __builtin_bswap64(name.key) >> (64 - 8 * length);
    name.length = length;
    return name;
}

#if defined(__x86_64__)
static inline WEIR_AVX2 weir_text_marks weir_mark_text_64(const unsigned char *bytes) {
    __m256i low = _mm256_loadu_si256((const __m256i *)bytes), high = _mm256_loadu_si256((const __m256i *)(bytes + 32));
    weir_text_marks marks = {weir_mark_32(low, high, '\n'), weir_mark_32(low, high, '\r'), 0};
    // As signed numbers, bytes beyond ASCII are below the blank.
    __m256i before = _mm256_set1_epi8(' '), last = _mm256_set1_epi8('~');
    __m256i others_low = _mm256_or_si256(_mm256_cmpgt_epi8(before, low), _mm256_cmpgt_epi8(low, last));
    __m256i others_high = _mm256_or_si256(_mm256_cmpgt_epi8(before, high), _mm256_cmpgt_epi8(high, last));
    marks.others = ((unsigned)_mm256_movemask_epi8(others_low)
        | (unsigned long long)(unsigned)_mm256_movemask_epi8(others_high) << 32) & ~(marks.newlines | marks.carriages);
    return marks;
}

static WEIR_AVX2 weir_copied weir_copy_lines_32(
    const unsigned char *text, size_t count, unsigned char *output, size_t longest) {
    WEIR_COPY_LINES(weir_mark_text_64)
}

typedef unsigned char weir_bytes_32 __attribute__((vector_size(32)));
#define WEIR_BITS_32(comparison) (unsigned)_mm256_movemask_epi8((__m256i)(comparison))

static WEIR_AVX2 weir_run weir_copy_html_text_32(const unsigned char *text, size_t count, unsigned char *output) {
    WEIR_COPY_HTML_TEXT(weir_bytes_32, WEIR_BITS_32)
}

/// The same sixteen bytes in both halves, for `_mm256_shuffle_epi8`.
#define WEIR_TWICE(...) _mm256_broadcastsi128_si256(_mm_setr_epi8(__VA_ARGS__))

/// The six bits of each of 32 characters of base64, and a mask of the bytes that are none.
static inline WEIR_AVX2 __m256i weir_base64_values(__m256i block, unsigned *others) {
    __m256i nibble = _mm256_set1_epi8(15);
    __m256i high = _mm256_and_si256(_mm256_srli_epi16(block, 4), nibble), low = _mm256_and_si256(block, nibble);
    // A bit for each kind of upper half: 2 (`+` and `/`), 3 (digits), 4 and 6 (letters from A), 5 and 7 (letters from
    // P), others. A byte is no base64 if its lower half does not go with its upper half.
    __m256i kinds = WEIR_TWICE(16, 16, 1, 2, 4, 8, 4, 8, 16, 16, 16, 16, 16, 16, 16, 16);
    __m256i refused = WEIR_TWICE(
        16 + 4 + 1, 16 + 1, 16 + 1, 16 + 1, 16 + 1, 16 + 1, 16 + 1, 16 + 1, 16 + 1, 16 + 1, 16 + 2 + 1, 16 + 8 + 2,
        16 + 8 + 2 + 1, 16 + 8 + 2 + 1, 16 + 8 + 2 + 1, 16 + 8 + 2);
    __m256i wrong = _mm256_and_si256(_mm256_shuffle_epi8(kinds, high), _mm256_shuffle_epi8(refused, low));
    *others = ~(unsigned)_mm256_movemask_epi8(_mm256_cmpeq_epi8(wrong, _mm256_setzero_si256()));
    // From a character to its value, by the upper half. `/` takes the place of 1.
    __m256i steps = WEIR_TWICE(
        0, 63 - '/', 62 - '+', 52 - '0', -'A', -'A', 26 - 'a', 26 - 'a', 0, 0, 0, 0, 0, 0, 0, 0);
    __m256i slash = _mm256_cmpeq_epi8(block, _mm256_set1_epi8('/'));
    return _mm256_add_epi8(block, _mm256_shuffle_epi8(steps, _mm256_add_epi8(high, slash)));
}

/// Writes 24 bytes, and then eight that do not matter. Returns a mask of the characters that are no base64.
static inline WEIR_AVX2 unsigned weir_base64_block(const unsigned char *text, unsigned char *output) {
    unsigned others;
    __m256i values = weir_base64_values(_mm256_loadu_si256((const __m256i *)text), &others);
    // Two values make 12 bits, and four 24. Their upper byte comes first.
    __m256i pairs = _mm256_maddubs_epi16(values, _mm256_set1_epi16(1 << 8 | 64));
    __m256i groups = _mm256_madd_epi16(pairs, _mm256_set1_epi32(1 << 16 | 4096));
    __m256i bytes = _mm256_shuffle_epi8(groups, WEIR_TWICE(2, 1, 0, 6, 5, 4, 10, 9, 8, 14, 13, 12, -1, -1, -1, -1));
    _mm_storeu_si128((__m128i *)output, _mm256_castsi256_si128(bytes));
    _mm_storeu_si128((__m128i *)(output + 12), _mm256_extracti128_si256(bytes, 1));
    return others;
}

/// Decodes base64 in blocks of 32 characters. Skips line ends between groups of four characters, and stops before
/// a group that has anything else. `output` needs room for three quarters of `count` bytes and 32 more.
static WEIR_AVX2 weir_copied weir_base64_32(const unsigned char *text, size_t count, unsigned char *output) {
    weir_copied copied = {0, 0, 0};
    while (count - copied.read >= 32) {
        const unsigned char *next = text + copied.read;
        unsigned char *end = output + copied.written;
        // Most lines have 76 characters (RFC 2045 6.8). They need not wait for the end of the line before to be found.
        if (count - copied.read >= 96 && next[76] == '\r' && next[77] == '\n'
            && !(weir_base64_block(next, end) || weir_base64_block(next + 32, end + 24)
                || (weir_base64_block(next + 64, end + 48) & 0xfff))) {
            copied.written += 57;
            copied.read += 78;
            continue;
        }
        unsigned others = weir_base64_block(next, end);
        if (!others) {
            copied.written += 24;
            copied.read += 32;
            continue;
        }
        size_t whole = (size_t)__builtin_ctz(others) & ~(size_t)3;
        copied.written += whole / 4 * 3;
        copied.read += whole;
        size_t line_end = text[copied.read] == '\r' ? 1 : 0;
        if (text[copied.read + line_end] != '\n') break;
        copied.read += line_end + 1;
    }
    return copied;
}

static inline weir_copied weir_copy_lines(
    const unsigned char *text, size_t count, unsigned char *output, size_t longest) {
    return WEIR_HAS_AVX2
        ? weir_copy_lines_32(text, count, output, longest) : weir_copy_lines_16(text, count, output, longest);
}

static inline weir_copied weir_base64(const unsigned char *text, size_t count, unsigned char *output) {
    weir_copied none = {0, 0, 0};
    return WEIR_HAS_AVX2 ? weir_base64_32(text, count, output) : none;
}

static inline weir_run weir_copy_html_text(const unsigned char *text, size_t count, unsigned char *output) {
    return WEIR_HAS_AVX2
        ? weir_copy_html_text_32(text, count, output) : weir_copy_html_text_16(text, count, output);
}
#else
static inline weir_copied weir_copy_lines(
    const unsigned char *text, size_t count, unsigned char *output, size_t longest) {
    return weir_copy_lines_16(text, count, output, longest);
}

static inline weir_copied weir_base64(const unsigned char *text, size_t count, unsigned char *output) {
    weir_copied none = {0, 0, 0};
    return none;
}

static inline weir_run weir_copy_html_text(const unsigned char *text, size_t count, unsigned char *output) {
    return weir_copy_html_text_16(text, count, output);
}
#endif

#endif
