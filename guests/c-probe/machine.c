/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "machine.h"

/* The compiler may call these for assignments of structures and loops, whatever the program does. */
void *memset(void *to, int value, size_t bytes);
void *memcpy(void *restrict to, const void *restrict from, size_t bytes);

void *memset(void *to, int value, size_t bytes)
{
    unsigned char *at = to;
    while (bytes-- != 0)
        *at++ = (unsigned char)value;
    return to;
}

void *memcpy(void *restrict to, const void *restrict from, size_t bytes)
{
    unsigned char *at = to;
    const unsigned char *source = from;
    while (bytes-- != 0)
        *at++ = *source++;
    return to;
}

void put(const char *text)
{
    for (; *text != 0; text++)
        write32(UART, (unsigned char)*text);
}

void put_padded(const char *text, size_t width)
{
    put(text);
    for (size_t written = length_of(text); written < width; written++)
        put(" ");
}

void hexadecimal(char *text, uint64_t value)
{
    int digits = 1;
    while (digits < 16 && value >> (4 * digits) != 0)
        digits++;
    *text++ = '0';
    *text++ = 'x';
    while (digits-- > 0)
        *text++ = "0123456789abcdef"[value >> (4 * digits) & 15];
    *text = 0;
}

void decimal(char *text, uint64_t value)
{
    char digits[20];
    int count = 0;
    do {
        digits[count++] = (char)('0' + value % 10);
        value /= 10;
    } while (value != 0);
    while (count > 0)
        *text++ = digits[--count];
    *text = 0;
}

size_t length_of(const char *text)
{
    size_t length = 0;
    while (text[length] != 0)
        length++;
    return length;
}

int same_text(const char *a, const char *b)
{
    while (*a != 0 && *a == *b) {
        a++;
        b++;
    }
    return *a == *b;
}

void maintain(uint64_t address, uint64_t bytes)
{
    uint64_t type;
    __asm__ volatile("mrs %0, ctr_el0" : "=r"(type));
    /* CTR_EL0.DminLine: the smallest line, as the logarithm of its number of 4-byte words. */
    uint64_t line = UINT64_C(4) << (type >> 16 & 15);
    __asm__ volatile("dsb sy" ::: "memory");
    for (uint64_t at = address & ~(line - 1); at < address + bytes; at += line)
        __asm__ volatile("dc civac, %0" ::"r"(at) : "memory");
    __asm__ volatile("dsb sy" ::: "memory");
}
