/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "probe.h"

#define SMCCC_VERSION        UINT64_C(0x80000000)
#define SMCCC_ARCH_FEATURES  UINT64_C(0x80000001)
#define PSCI_VERSION         UINT64_C(0x84000000)
#define PSCI_CPU_OFF         UINT64_C(0x84000002)
#define PSCI_CPU_ON_32       UINT64_C(0x84000003)
#define PSCI_CPU_ON_64       UINT64_C(0xc4000003)
#define PSCI_AFFINITY_32     UINT64_C(0x84000004)
#define PSCI_AFFINITY_64     UINT64_C(0xc4000004)
#define PSCI_MIGRATE_INFO    UINT64_C(0x84000006)
#define PSCI_SYSTEM_OFF      UINT64_C(0x84000008)
#define PSCI_SYSTEM_RESET    UINT64_C(0x84000009)
#define PSCI_FEATURES        UINT64_C(0x8400000a)

uint64_t tiers;

static void discovery(void)
{
    struct strandline_result r = make((struct request){STRANDLINE_UID, 0, 0, 0, 44, 0});
    expect_value("uid", "w0", STRANDLINE_UID_0, (uint64_t)r.x0);
    expect_value("uid", "w1", STRANDLINE_UID_1, r.x1);
    expect_value("uid", "w2", STRANDLINE_UID_2, r.x2);
    expect_value("uid", "w3", STRANDLINE_UID_3, r.x3);
    expect_value("uid", "x4 is kept", 44, r.x4);
    r = make((struct request){STRANDLINE_REVISION, 1, 2, 3, 4, 5});
    expect_value("revision", "major", STRANDLINE_VERSION >> 16, (uint64_t)r.x0);
    expect_value("revision", "minor, at or above this header's", 1, r.x1 >= (STRANDLINE_VERSION & 0xffff));
    expect_value("revision", "w2 and w3 are 0, x4 is kept; arguments are ignored", 1,
                 r.x2 == 0 && r.x3 == 0 && r.x4 == 4);
    r = make((struct request){STRANDLINE_FEATURES, 0, 0, 0, 0, 0});
    tiers = r.x4;
    expect_value("features", "status", (uint64_t)STRANDLINE_DONE, (uint64_t)r.x0);
    expect_value("features", "major version", STRANDLINE_VERSION >> 16, r.x1 >> 16);
    const uint64_t granules = 1 | PAGE | 2 * MIB | UINT64_C(1) << 30, cpu = r.x4 & 0xff;
    expect_value("features", "calls 0 to 8 exist", 0x1ff, r.x2 & 0x1ff);
    expect_value("features", "granules of 4096 bytes, 2 MiB and 1 GiB, and adaptive", granules, r.x3 & granules);
    expect_value("features", "tier of the CPU: hardware, or faults", 1,
                 cpu == STRANDLINE_CPU_TIER_HARDWARE || cpu == STRANDLINE_CPU_TIER_FAULTS);
    expect_value("features", "upper half of x0 is ignored", r.x2,
                 make((struct request){STRANDLINE_FEATURES | UINT64_C(0xdead) << 32, 0, 0, 0, 0, 0}).x2);
    expect_value("features", "the SVE hint (bit 16) is no part of the number", r.x2,
                 make((struct request){STRANDLINE_FEATURES | 1 << 16, 0, 0, 0, 0, 0}).x2);
}

/* A call of the firmware's: x0, with 0 in x1 to x3 and x4 as it was. */
static void answers(const char *call, const char *tried, uint64_t id, uint64_t x1, int64_t wanted)
{
    struct strandline_result r = make((struct request){id, x1, 22, 33, 44, 55});
    expect_value(call, tried, (uint64_t)wanted, (uint64_t)r.x0);
    if (r.x1 != 0 || r.x2 != 0 || r.x3 != 0 || r.x4 != 44)
        expect_value(call, "x1 to x3 are 0, x4 is kept", 1, 0);
}

static void smccc_and_psci(void)
{
    static const uint64_t HAS[] = {SMCCC_VERSION,    PSCI_VERSION,     PSCI_CPU_OFF,      PSCI_CPU_ON_32,
                                   PSCI_CPU_ON_64,   PSCI_AFFINITY_32, PSCI_AFFINITY_64,  PSCI_MIGRATE_INFO,
                                   PSCI_SYSTEM_OFF,  PSCI_SYSTEM_RESET, PSCI_FEATURES};
    answers("smccc", "SMCCC_VERSION", SMCCC_VERSION, 11, 0x10003);
    answers("smccc", "SMCCC_VERSION with the SVE hint", SMCCC_VERSION | 1 << 16, 11, 0x10003);
    answers("smccc", "ARCH_FEATURES of SMCCC_VERSION", SMCCC_ARCH_FEATURES, SMCCC_VERSION, 0);
    answers("smccc", "ARCH_FEATURES of itself", SMCCC_ARCH_FEATURES, SMCCC_ARCH_FEATURES, 0);
    answers("smccc", "ARCH_FEATURES of a workaround", SMCCC_ARCH_FEATURES, 0x80008000, -1);
    answers("psci", "PSCI_VERSION", PSCI_VERSION, 11, 0x10001);
    for (size_t i = 0; i < sizeof HAS / sizeof HAS[0]; i++)
        answers("psci", "PSCI_FEATURES of what there is", PSCI_FEATURES, HAS[i], 0);
    answers("psci", "PSCI_FEATURES of CPU_SUSPEND", PSCI_FEATURES, 0xc4000001, -1);
    answers("psci", "PSCI_FEATURES of a call of ours", PSCI_FEATURES, STRANDLINE_FEATURES, -1);
    answers("psci", "CPU_ON, 64-bit, of CPU 0", PSCI_CPU_ON_64, 0, -4);
    answers("psci", "CPU_ON, 64-bit, of CPU 1", PSCI_CPU_ON_64, 1, -2);
    answers("psci", "CPU_ON, 64-bit, of an affinity above bit 31", PSCI_CPU_ON_64, UINT64_C(1) << 32, -2);
    answers("psci", "CPU_ON, 32-bit: bits 63:32 are ignored", PSCI_CPU_ON_32, UINT64_C(1) << 32, -4);
    answers("psci", "CPU_ON, 32-bit, of CPU 1", PSCI_CPU_ON_32, 1, -2);
    answers("psci", "AFFINITY_INFO, 64-bit, of CPU 0", PSCI_AFFINITY_64, 0, 0);
    answers("psci", "AFFINITY_INFO, 32-bit, of CPU 0", PSCI_AFFINITY_32, 0, 0);
    answers("psci", "AFFINITY_INFO, 64-bit, of CPU 1", PSCI_AFFINITY_64, 1, -2);
    answers("psci", "AFFINITY_INFO, 32-bit, of CPU 1", PSCI_AFFINITY_32, 1, -2);
    answers("psci", "MIGRATE_INFO_TYPE", PSCI_MIGRATE_INFO, 0, 2);
    answers("other", "zero", 0, 0, -1);
    answers("other", "all ones", 0xffffffff, 0, -1);
    answers("other", "a yielding call with a number of ours", 0x46000001, 0, -1);
    answers("other", "a yielding 32-bit call with a number of ours", 0x06000001, 0, -1);
    answers("other", "owner 5", 0xc5000001, 0, -1);
    answers("other", "owner 7", 0xc7000001, 0, -1);
    answers("other", "a trusted OS's call count", 0xbf00ff00, 0, -1);
}

static void identifiers_that_do_not_exist(void)
{
    static const struct {
        uint64_t id;
        const char *tried;
    } ABSENT[] = {
        {0xc6000009, "the number behind the last"}, {0xc600ffff, "the last number"},
        {0x86000001, "32-bit form of start"},       {0x86000000, "32-bit form of features"},
        {0xc600ff01, "64-bit form of uid"},         {0xc600ff03, "64-bit form of revision"},
        {0x8600ff00, "call count"},                 {0x8600ff02, "reserved query"},
        {0xc6020001, "reserved bit 17"},            {0xc6800001, "reserved bit 23"},
    };
    for (size_t i = 0; i < sizeof ABSENT / sizeof ABSENT[0]; i++)
        expect(ABSENT[i].tried, (struct request){ABSENT[i].id, 1, 2, 3, 4, 5}, STRANDLINE_NOT_SUPPORTED, ABSENT[i].id);
    expect("unknown, with the SVE hint", (struct request){0xc6010009, 0, 0, 0, 0, 0}, STRANDLINE_NOT_SUPPORTED,
           0xc6000009);
}

/* SMCCC_VERSION in another way than by HVC #0: -1, and x1 as it was. */
#define OTHERWISE(tried, instruction)                                                             \
    do {                                                                                          \
        register uint64_t x0 __asm__("x0") = SMCCC_VERSION;                                       \
        register uint64_t x1 __asm__("x1") = 11;                                                  \
        __asm__ volatile(instruction : "+r"(x0), "+r"(x1)::"x2", "x3", "memory");                 \
        uint64_t answer = x0, kept_x1 = x1;                                                       \
        expect_value("other", tried, UINT64_MAX, answer);                                         \
        expect_value("other", "  x1 is kept", 11, kept_x1);                                       \
    } while (0)

static void other_ways_to_call(void)
{
    OTHERWISE("SMCCC_VERSION by SMC #0", "smc #0");
    OTHERWISE("SMCCC_VERSION by SMC #1", "smc #1");
    OTHERWISE("SMCCC_VERSION by HVC #1", "hvc #1");
    OTHERWISE("SMCCC_VERSION by HVC #0xffff", "hvc #0xffff");
}

/* Registers after a call that may change x0 to x3, and x4 where `features`. */
static void kept(const char *call, uint64_t id, int features)
{
    static uint64_t in[31], out[31], simd[64];
    uint64_t flags = 0, lost = 0;
    for (uint64_t i = 0; i < 31; i++)
        in[i] = features && i <= 5 ? 0 : UINT64_C(0x1234567800000000) + i;
    in[0] = id;
    call_with_all(in, out, simd, &flags);
    for (uint64_t i = features ? 5 : 4; i < 31; i++)
        if (in[i] != out[i])
            lost |= UINT64_C(1) << i;
    expect_value(call, features ? "x5 to x30 are kept (bit n: xn is not)" : "x4 to x30 are kept (bit n: xn is not)", 0,
                 lost);
    lost = 0;
    for (uint64_t i = 0; i < 64; i++)
        if (simd[i] != 0x5eed0000 + i / 2)
            lost |= UINT64_C(1) << i / 2;
    expect_value(call, "v0 to v31 are kept (bit n: vn is not)", 0, lost);
    expect_value(call, "the condition flags are kept", 0xa0000000, flags);
}

void firmware(const struct memory *m)
{
    (void)m;
    discovery();
    smccc_and_psci();
    identifiers_that_do_not_exist();
    other_ways_to_call();
    kept("features", STRANDLINE_FEATURES, 1);
    kept("uid", STRANDLINE_UID, 0);
    kept("start", STRANDLINE_START, 0);
    kept("psci", PSCI_VERSION, 0);
    kept("other", 0xc6000009, 0);
}
