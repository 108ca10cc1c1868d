/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * A guest kernel in C, written from docs/hypercalls.md, docs/boot.md and strandline.h alone. It makes every call, with
 * every flag, and meets every error that a guest can meet; prints a table of them; and ends by SYSTEM_OFF where all were
 * as expected, else by SYSTEM_RESET.
 */
#include "probe.h"

#define SYSTEM_OFF    UINT64_C(0x84000008)
#define SYSTEM_RESET  UINT64_C(0x84000009)

_Noreturn void c_probe(uint64_t device_tree);
_Noreturn void unexpected_exception(uint64_t vector, uint64_t esr, uint64_t elr, uint64_t far);

static _Noreturn void end(uint64_t how)
{
    make((struct request){how, 0, 0, 0, 0, 0});
    for (;;)
        __asm__ volatile("wfi");
}

static void put_number(const char *before, uint64_t value, int hexadecimally)
{
    char text[21];
    put(before);
    if (hexadecimally)
        hexadecimal(text, value);
    else
        decimal(text, value);
    put(text);
}

void unexpected_exception(uint64_t vector, uint64_t esr, uint64_t elr, uint64_t far)
{
    put_number("c-probe: FAILED: unexpected exception, vector ", vector, 0);
    put_number(", ESR_EL1 ", esr, 1);
    put_number(", ELR_EL1 ", elr, 1);
    put_number(", FAR_EL1 ", far, 1);
    put("\n");
    end(SYSTEM_RESET);
}

static void all_but_memory(const struct memory *m)
{
    firmware(m);
    refusals_without_a_log(m);
    copying(m);
    steps_of_start_and_stop(m);
    struct request start = {STRANDLINE_START, m->logged, LOGGED_BYTES, PAGE, 0, 0};
    expect_value("start", "all steps", (uint64_t)STRANDLINE_DONE, (uint64_t)finish(start).x0);
    refusals_with_a_log(m);
    reading(m);
    records(m);
    copying(m);
    device(m);
    struct request stop = {STRANDLINE_STOP, 0, 0, 0, 0, 0};
    expect_value("stop", "all steps", (uint64_t)STRANDLINE_DONE, (uint64_t)finish(stop).x0);
    granules_and_tiers(m);
    adaptive(m);
    steps_of_sync(m);
    not_tried("start", "NO_MEMORY", "there are frames enough here (the word no-memory says where there are not)");
    not_tried("all", "UNTRUSTED", "hardware that stops answering is nothing a guest can make");
}

void c_probe(uint64_t device_tree)
{
    struct tree tree;
    if (!tree_read(device_tree, &tree)) {
        put("c-probe: FAILED: no device tree, or one that does not name the RAM\n");
        end(SYSTEM_RESET);
    }
    uint64_t middle = (tree.end + 2 * MIB - 1) & ~(2 * MIB - 1);
    const struct memory m = {tree.ram_start, tree.ram_start + tree.ram_bytes, middle + 2 * MIB, middle + 4 * MIB};
    if (m.buffer + 8 * MIB + LOGGED_BYTES > m.ram_end) {
        put("c-probe: FAILED: too little RAM\n");
        end(SYSTEM_RESET);
    }
    table_head();
    expect_value("discovery", "a node strandline,strandline whose method is hvc", 1, (uint64_t)tree.has_strandline);
    if (tree_asks_for(&tree, "no-memory"))
        no_memory(&m);
    else if (tree_asks_for(&tree, "cost"))
        cost_of_a_call();
    else
        all_but_memory(&m);
    put_number("c-probe: ", rows - wrong, 0);
    put_number(" of ", rows, 0);
    put(wrong == 0 ? " as expected\n" : " as expected: FAILED\n");
    end(wrong == 0 ? SYSTEM_OFF : SYSTEM_RESET);
}
