/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * As much of a flattened device tree (Devicetree Specification, chapter 5) as the probe needs.
 */
#include "machine.h"

enum { BEGIN_NODE = 1, END_NODE = 2, PROPERTY = 3, NOP = 4, END = 9 };

static uint32_t big_endian(const unsigned char *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static uint64_t two_cells(const unsigned char *at)
{
    return (uint64_t)big_endian(at) << 32 | big_endian(at + 4);
}

static int begins_with(const char *text, const char *start)
{
    while (*start != 0)
        if (*text++ != *start++)
            return 0;
    return 1;
}

/* Where the walk is, and what it knows of the node it is in. */
struct place {
    int depth;
    int in_memory, in_chosen;
    int compatible, by_hvc;
};

static void property(struct tree *tree, struct place *in, const char *name, const unsigned char *value, uint32_t bytes)
{
    const char *text = (const char *)value;
    /* The root of a guest's tree has two cells for an address and two for a length. */
    if (in->in_memory && same_text(name, "reg") && bytes >= 16 && tree->ram_bytes == 0) {
        tree->ram_start = two_cells(value);
        tree->ram_bytes = two_cells(value + 8);
    } else if (in->in_chosen && same_text(name, "bootargs") && bytes != 0) {
        tree->command_line = text;
    } else if (same_text(name, "compatible") && bytes != 0) {
        in->compatible = same_text(text, "strandline,strandline");
    } else if (same_text(name, "method") && bytes != 0) {
        in->by_hvc = same_text(text, "hvc");
    }
}

static void begin_node(struct place *in, const char *name)
{
    in->depth++;
    in->in_memory = in->depth == 2 && begins_with(name, "memory@");
    in->in_chosen = in->depth == 2 && same_text(name, "chosen");
    in->compatible = in->by_hvc = 0;
}

static void end_node(struct tree *tree, struct place *in)
{
    in->depth--;
    tree->has_strandline |= in->compatible && in->by_hvc;
    in->in_memory = in->in_chosen = in->compatible = in->by_hvc = 0;
}

int tree_read(uint64_t address, struct tree *tree)
{
    const unsigned char *start = (const unsigned char *)(uintptr_t)address;
    struct place in = {0, 0, 0, 0, 0};
    *tree = (struct tree){0, 0, 0, 0, ""};
    if (address % 8 != 0 || big_endian(start) != 0xd00dfeed)
        return 0;
    tree->end = address + big_endian(start + 4);
    const unsigned char *at = start + big_endian(start + 8);
    const char *names = (const char *)start + big_endian(start + 12);
    const unsigned char *end = at + big_endian(start + 36);
    while (at + 4 <= end) {
        uint32_t token = big_endian(at);
        at += 4;
        if (token == BEGIN_NODE) {
            begin_node(&in, (const char *)at);
            at += (length_of((const char *)at) + 4) & ~(size_t)3;
        } else if (token == END_NODE) {
            end_node(tree, &in);
        } else if (token == PROPERTY) {
            uint32_t bytes = big_endian(at);
            property(tree, &in, names + big_endian(at + 4), at + 8, bytes);
            at += 8 + ((bytes + 3) & ~UINT32_C(3));
        } else if (token != NOP) {
            return token == END && tree->ram_bytes != 0;
        }
    }
    return 0;
}

int tree_asks_for(const struct tree *tree, const char *word)
{
    const char *at = tree->command_line;
    while (*at != 0) {
        while (*at == ' ')
            at++;
        const char *end = at;
        while (*end != 0 && *end != ' ')
            end++;
        if (begins_with(at, word) && (size_t)(end - at) == length_of(word))
            return 1;
        at = end;
    }
    return 0;
}
