// Runs code that ends in an exception to EL1, and keeps what the exception left.

    .macro  trial_vector number
    .balign 0x80
    msr     tpidr_el0, x0
    mov     x0, #\number
    b       trial_end
    .endm

    .balign 0x800
trial_vectors:
    .irp    number, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    trial_vector \number
    .endr

// x0 = record. Comes back by trial_end.
    .global trial_run
trial_run:
    stp     x29, x30, [sp, #-96]!
    stp     x27, x28, [sp, #16]
    stp     x25, x26, [sp, #32]
    stp     x23, x24, [sp, #48]
    stp     x21, x22, [sp, #64]
    stp     x19, x20, [sp, #80]
    mrs     x9, vbar_el1
    str     x9, [x0, #{VBAR}]
    adr     x9, trial_vectors
    msr     vbar_el1, x9
    mov     x9, sp
    str     x9, [x0, #{SP}]
    msr     tpidr_el1, x0
    ldr     x9, [x0, #{PC}]
    msr     elr_el1, x9
    ldr     x9, [x0, #{SPSR}]
    msr     spsr_el1, x9
    mrs     x10, sctlr_el1
    str     x10, [x0, #{OLD_SCTLR}]
    ldr     x9, [x0, #{SCTLR}]
    ldp     x2, x3, [x0, #{X}+16]
    ldp     x0, x1, [x0, #{X}]
    msr     sctlr_el1, x9
    isb
    eret

// x0 = vector, TPIDR_EL0 = x0 of the code that was run.
trial_end:
    msr     tpidrro_el0, x1
    mrs     x1, tpidr_el1
    str     x0, [x1, #{VECTOR}]
    mrs     x0, tpidr_el0
    str     x0, [x1, #{X}]
    mrs     x0, tpidrro_el0
    str     x0, [x1, #{X}+8]
    stp     x2, x3, [x1, #{X}+16]

    // PSTATE, field by field. What not every CPU has is read where the record says so.
    mrs     x0, nzcv
    mrs     x2, daif
    orr     x0, x0, x2
    mrs     x2, currentel
    orr     x0, x0, x2
    mrs     x2, spsel
    orr     x0, x0, x2
    ldr     x3, [x1, #{FIELDS}]
    tbz     x3, #{MOST_FIELDS}, 1f
    mrs     x2, s3_0_c4_c2_3            // PAN
    orr     x0, x0, x2
    mrs     x2, s3_0_c4_c2_4            // UAO
    orr     x0, x0, x2
    tbz     x3, #{ALL_FIELDS}, 1f
    mrs     x2, s3_3_c4_c2_5            // DIT
    orr     x0, x0, x2
    mrs     x2, s3_3_c4_c2_6            // SSBS
    orr     x0, x0, x2
    mrs     x2, s3_3_c4_c2_7            // TCO
    orr     x0, x0, x2
    mrs     x2, s3_0_c4_c3_0            // ALLINT
    orr     x0, x0, x2
1:  str     x0, [x1, #{PSTATE}]

    ldr     x0, [x1, #{OLD_SCTLR}]
    msr     sctlr_el1, x0
    isb
    mrs     x0, esr_el1
    str     x0, [x1, #{ESR}]
    mrs     x0, elr_el1
    str     x0, [x1, #{PC}]
    mrs     x0, spsr_el1
    str     x0, [x1, #{SPSR}]
    mrs     x0, far_el1
    str     x0, [x1, #{FAR}]
    ldr     x0, [x1, #{VBAR}]
    msr     vbar_el1, x0
    ldr     x0, [x1, #{SP}]
    mov     sp, x0
    msr     spsel, #1
    ldp     x27, x28, [sp, #16]
    ldp     x25, x26, [sp, #32]
    ldp     x23, x24, [sp, #48]
    ldp     x21, x22, [sp, #64]
    ldp     x19, x20, [sp, #80]
    ldp     x29, x30, [sp], #96
    ret
