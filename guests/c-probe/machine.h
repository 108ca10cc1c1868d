/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * What the probe stands on: the console, the device tree, memory, power. Addresses are those of docs/boot.md.
 */
#ifndef MACHINE_H
#define MACHINE_H

#include <stddef.h>
#include <stdint.h>

/* A guest's addresses below its RAM. */
#define UART        UINT64_C(0x09000000)
#define PCI_WINDOW  UINT64_C(0x10000000)
#define ECAM        UINT64_C(0x30000000)
#define RAM         UINT64_C(0x40000000)

#define PAGE  UINT64_C(4096)
#define MIB   (UINT64_C(1) << 20)

/* What the device tree says. */
struct tree {
    uint64_t ram_start;
    uint64_t ram_bytes;
    uint64_t end;         /* of the tree itself */
    int has_strandline;   /* a node compatible with strandline,strandline, whose method is hvc */
    const char *command_line;
};

/* Reads the tree at `address`; 0 where it is none, or does not name the RAM. */
int tree_read(uint64_t address, struct tree *tree);
/* Whether the command line has `word`. */
int tree_asks_for(const struct tree *tree, const char *word);

/* Writes a string to the console. */
void put(const char *text);
/* Writes a string, and spaces up to `width` characters. */
void put_padded(const char *text, size_t width);
/* `value` as 0x..., into `text`, which has room for 19 bytes. */
void hexadecimal(char *text, uint64_t value);
/* `value` in decimal, into `text`, which has room for 21 bytes. */
void decimal(char *text, uint64_t value);

size_t length_of(const char *text);
int same_text(const char *a, const char *b);

/* Makes what the CPU wrote to `bytes` from `address` visible to Strandline's caches, and the other way round: for a
 * guest whose caches are off, before and after a call that reads or writes them. */
void maintain(uint64_t address, uint64_t bytes);

/* One 64-bit access to memory or a register. */
static inline uint64_t read64(uint64_t address) { return *(volatile uint64_t *)(uintptr_t)address; }
static inline void write64(uint64_t address, uint64_t value) { *(volatile uint64_t *)(uintptr_t)address = value; }
static inline uint32_t read32(uint64_t address) { return *(volatile uint32_t *)(uintptr_t)address; }
static inline void write32(uint64_t address, uint32_t value) { *(volatile uint32_t *)(uintptr_t)address = value; }

/* In start.S. */
void call_with_all(const uint64_t in[31], uint64_t out[31], uint64_t simd[64], uint64_t *flags);

#endif
