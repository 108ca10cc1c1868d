/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "probe.h"

#define CALLS 1000

static uint64_t now(void)
{
    uint64_t ticks;
    __asm__ volatile("isb\n\tmrs %0, cntvct_el0" : "=r"(ticks)::"memory");
    return ticks;
}

/* Ticks of CALLS times what the macro's argument is, eight to a round so that the loop itself counts little. */
#define TICKS(once)                                                                    \
    ({                                                                                 \
        uint64_t began_ = now();                                                       \
        for (int i_ = 0; i_ < CALLS / 8; i_++) {                                       \
            once once once once once once once once                                    \
        }                                                                              \
        now() - began_;                                                                \
    })

#define CALL(id)                                                                       \
    {                                                                                  \
        register uint64_t x0 __asm__("x0") = (id);                                     \
        __asm__ volatile("mov x1, xzr\n\tmov x2, xzr\n\tmov x3, xzr\n\tmov x4, xzr\n\tmov x5, xzr\n\thvc #0"              \
                         : "+r"(x0)                                                    \
                         :                                                             \
                         : "x1", "x2", "x3", "x4", "x5", "memory");                    \
    }

/* One instruction. */
#define NOTHING __asm__ volatile("nop" ::: "memory");

static void tell(const char *what, uint64_t ticks)
{
    char text[21];
    put("cost: ");
    decimal(text, ticks);
    put(text);
    put(" ticks for 1000 times ");
    put(what);
    put("\n");
}

/* With an emulator that counts instructions (QEMU's -icount), ticks are instructions. */
void cost_of_a_call(void)
{
    uint64_t frequency;
    __asm__("mrs %0, cntfrq_el0" : "=r"(frequency));
    char text[21];
    put("cost: ");
    decimal(text, frequency);
    put(text);
    put(" ticks a second\n");
    tell("nothing", TICKS(NOTHING));
    tell("an unknown call", TICKS(CALL(0xc600ffff)));
    tell("revision", TICKS(CALL(STRANDLINE_REVISION)));
    tell("features", TICKS(CALL(STRANDLINE_FEATURES)));
    tell("PSCI_VERSION", TICKS(CALL(0x84000000)));
}
