/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Strandline's hypercalls for guest kernels in C. The contract is docs/hypercalls.md; a test checks every value here
 * against the Rust crate strandline-abi.
 */
#ifndef STRANDLINE_H
#define STRANDLINE_H

#include <stdint.h>

/* Function identifiers, in w0. */
#define STRANDLINE_UID       UINT64_C(0x8600ff01)
#define STRANDLINE_REVISION  UINT64_C(0x8600ff03)
#define STRANDLINE_FEATURES  UINT64_C(0xc6000000)
#define STRANDLINE_START     UINT64_C(0xc6000001)
#define STRANDLINE_SYNC      UINT64_C(0xc6000002)
#define STRANDLINE_CLEAR     UINT64_C(0xc6000003)
#define STRANDLINE_STOP      UINT64_C(0xc6000004)
#define STRANDLINE_STATUS    UINT64_C(0xc6000005)
#define STRANDLINE_FAULTS    UINT64_C(0xc6000006)

/* The four words of the UID, as the UID call returns them in w0..w3. */
#define STRANDLINE_UID_0     UINT32_C(0x61727453)
#define STRANDLINE_UID_1     UINT32_C(0x694c646e)
#define STRANDLINE_UID_2     UINT32_C(0x6f4c658e)
#define STRANDLINE_UID_3     UINT32_C(0x326c4567)

/* Status in x0. */
#define STRANDLINE_DONE               INT64_C(0)
#define STRANDLINE_MORE               INT64_C(1)
#define STRANDLINE_NOT_SUPPORTED      INT64_C(-1)
#define STRANDLINE_INVALID_PARAMETER  INT64_C(-3)
#define STRANDLINE_UNALIGNED          INT64_C(-16)
#define STRANDLINE_OUT_OF_RANGE       INT64_C(-17)
#define STRANDLINE_DENIED             INT64_C(-18)
#define STRANDLINE_BUSY               INT64_C(-19)
#define STRANDLINE_NO_MEMORY          INT64_C(-20)
#define STRANDLINE_UNTRUSTED          INT64_C(-21)

/* Tiers: in a register that holds them the CPU's in bits 7:0, the weakest of the devices' in bits 15:8. */
#define STRANDLINE_CPU_TIER_NONE      UINT64_C(0)
#define STRANDLINE_CPU_TIER_HARDWARE  UINT64_C(1)
#define STRANDLINE_CPU_TIER_FAULTS    UINT64_C(2)
#define STRANDLINE_DMA_TIER_NONE      UINT64_C(0)
#define STRANDLINE_DMA_TIER_HARDWARE  UINT64_C(1)
#define STRANDLINE_DMA_TIER_STALL     UINT64_C(2)
#define STRANDLINE_DMA_TIER_DIGEST    UINT64_C(3)
#define STRANDLINE_DMA_TIER_ASSUME    UINT64_C(4)

/* States of a log. */
#define STRANDLINE_LOG_STATE_OFF        UINT64_C(0)
#define STRANDLINE_LOG_STATE_STARTING   UINT64_C(1)
#define STRANDLINE_LOG_STATE_ON         UINT64_C(2)
#define STRANDLINE_LOG_STATE_STOPPING   UINT64_C(3)
#define STRANDLINE_LOG_STATE_UNTRUSTED  UINT64_C(4)

/* Flags of sync and clear, in x4. */
#define STRANDLINE_CPU    UINT64_C(1)
#define STRANDLINE_DMA    UINT64_C(2)
#define STRANDLINE_CLEAR_DELIVERED UINT64_C(4)

/* What the status call writes. */
struct strandline_log_status {
    uint64_t state;
    uint64_t tiers;
    uint64_t start;
    uint64_t bytes;
    uint64_t cpu_blocks_1g;
    uint64_t cpu_blocks_2m;
    uint64_t cpu_pages_4k;
    uint64_t cpu_tables;
    uint64_t dma_blocks_1g;
    uint64_t dma_blocks_2m;
    uint64_t dma_pages_4k;
    uint64_t dma_tables;
    uint64_t blocks_split;
    uint64_t blocks_merged;
    uint64_t pages_reported;
    uint64_t smmu_commands;
    uint64_t smmu_tlbi_vmall;
    uint64_t smmu_tlbi_ipa;
    uint64_t smmu_syncs;
    uint64_t free_frames;
};

/* What the faults call writes, one for each record. */
struct strandline_fault_record {
    uint64_t stream;
    uint64_t kind;
    uint64_t ipa;
    uint64_t access;
};

#define STRANDLINE_FAULT_WRITE UINT64_C(1)
#define STRANDLINE_FAULT_FETCH UINT64_C(2)

struct strandline_result {
    int64_t x0;
    uint64_t x1, x2, x3, x4;
};

#ifdef __aarch64__
/* Makes one call. */
static inline struct strandline_result strandline_call(uint64_t id, uint64_t a1, uint64_t a2, uint64_t a3,
                                                       uint64_t a4, uint64_t a5)
{
    register uint64_t x0 __asm__("x0") = id;
    register uint64_t x1 __asm__("x1") = a1;
    register uint64_t x2 __asm__("x2") = a2;
    register uint64_t x3 __asm__("x3") = a3;
    register uint64_t x4 __asm__("x4") = a4;
    register uint64_t x5 __asm__("x5") = a5;
    struct strandline_result result;
    /* SMCCC lets x0 to x17 change; Strandline keeps x5 to x17. */
    __asm__ volatile("hvc #0"
                     : "+r"(x0), "+r"(x1), "+r"(x2), "+r"(x3), "+r"(x4), "+r"(x5)
                     :
                     : "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14", "x15", "x16", "x17", "memory");
    result.x0 = (int64_t)x0;
    result.x1 = x1;
    result.x2 = x2;
    result.x3 = x3;
    result.x4 = x4;
    return result;
}
#endif

#endif
