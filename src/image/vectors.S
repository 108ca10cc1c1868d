// EL2's exception vectors, the way into a guest and the way back.

.macro fatal kind
    .balign {VECTOR_BYTES}
    mov     x0, #\kind
    b       exception_at_el2
.endm

.macro from_guest kind
    .balign {VECTOR_BYTES}
    stp     x0, x1, [sp, #-{PAIR}]!
    mov     x0, #\kind
    b       guest_exit
.endm

// In the page of the headers (linker/image.ld), where there is room for it: nothing happens here before the MMU has been off.
.section .head.vectors, "ax"
.balign {VECTORS_BYTES}
.global vectors
vectors:
    // From EL2 on SP_EL0, which it never uses, and on its own stack.
    fatal   {SYNC}
    fatal   {IRQ}
    fatal   {FIQ}
    fatal   {SERROR}
    fatal   {SYNC}
    fatal   {IRQ}
    fatal   {FIQ}
    fatal   {SERROR}
    // From a guest in AArch64, and from EL0 of one in AArch32.
    .rept 2
    from_guest {SYNC}
    from_guest {IRQ}
    from_guest {FIQ}
    from_guest {SERROR}
    .endr

.section .text.vectors, "ax"
// x0 = kind. Whatever happened, the stack can't be trusted: it may be what ran out.
exception_at_el2:
    adrp    x1, emergency_stack_end
    mov     sp, x1
    mov     x29, xzr
    mov     x30, xzr
    bl      {exception_at_el2}
    b       park

// Runs the guest whose registers are at x0 until it comes back to EL2; returns the kind of exception in x0.
// Guest state that this doesn't touch stays in the hardware: EL1's system registers, FP and SIMD.
.global vcpu_enter
vcpu_enter:
    stp     x29, x30, [sp, #-{HOST_FRAME}]!
    stp     x27, x28, [sp, #1*{PAIR}]
    stp     x25, x26, [sp, #2*{PAIR}]
    stp     x23, x24, [sp, #3*{PAIR}]
    stp     x21, x22, [sp, #4*{PAIR}]
    stp     x19, x20, [sp, #5*{PAIR}]
    msr     tpidr_el2, x0
    ldr     x1, [x0, #{PC}]
    ldr     x2, [x0, #{PSTATE}]
    msr     elr_el2, x1
    msr     spsr_el2, x2
    ldp     x2, x3, [x0, #{X}+1*{PAIR}]
    ldp     x4, x5, [x0, #{X}+2*{PAIR}]
    ldp     x6, x7, [x0, #{X}+3*{PAIR}]
    ldp     x8, x9, [x0, #{X}+4*{PAIR}]
    ldp     x10, x11, [x0, #{X}+5*{PAIR}]
    ldp     x12, x13, [x0, #{X}+6*{PAIR}]
    ldp     x14, x15, [x0, #{X}+7*{PAIR}]
    ldp     x16, x17, [x0, #{X}+8*{PAIR}]
    ldp     x18, x19, [x0, #{X}+9*{PAIR}]
    ldp     x20, x21, [x0, #{X}+10*{PAIR}]
    ldp     x22, x23, [x0, #{X}+11*{PAIR}]
    ldp     x24, x25, [x0, #{X}+12*{PAIR}]
    ldp     x26, x27, [x0, #{X}+13*{PAIR}]
    ldp     x28, x29, [x0, #{X}+14*{PAIR}]
    ldr     x30, [x0, #{X}+15*{PAIR}]
    ldp     x0, x1, [x0, #{X}]
    eret
    // Nothing behind the ERET is executed, not even speculatively.
    dsb     nsh
    isb

// x0 = kind, the guest's x0 and x1 on the stack, everything else as the guest left it.
guest_exit:
    mrs     x1, tpidr_el2
    stp     x2, x3, [x1, #{X}+1*{PAIR}]
    ldp     x2, x3, [sp], #{PAIR}
    stp     x2, x3, [x1, #{X}]
    stp     x4, x5, [x1, #{X}+2*{PAIR}]
    stp     x6, x7, [x1, #{X}+3*{PAIR}]
    stp     x8, x9, [x1, #{X}+4*{PAIR}]
    stp     x10, x11, [x1, #{X}+5*{PAIR}]
    stp     x12, x13, [x1, #{X}+6*{PAIR}]
    stp     x14, x15, [x1, #{X}+7*{PAIR}]
    stp     x16, x17, [x1, #{X}+8*{PAIR}]
    stp     x18, x19, [x1, #{X}+9*{PAIR}]
    stp     x20, x21, [x1, #{X}+10*{PAIR}]
    stp     x22, x23, [x1, #{X}+11*{PAIR}]
    stp     x24, x25, [x1, #{X}+12*{PAIR}]
    stp     x26, x27, [x1, #{X}+13*{PAIR}]
    stp     x28, x29, [x1, #{X}+14*{PAIR}]
    str     x30, [x1, #{X}+15*{PAIR}]
    mrs     x2, elr_el2
    mrs     x3, spsr_el2
    str     x2, [x1, #{PC}]
    str     x3, [x1, #{PSTATE}]
    ldp     x27, x28, [sp, #1*{PAIR}]
    ldp     x25, x26, [sp, #2*{PAIR}]
    ldp     x23, x24, [sp, #3*{PAIR}]
    ldp     x21, x22, [sp, #4*{PAIR}]
    ldp     x19, x20, [sp, #5*{PAIR}]
    ldp     x29, x30, [sp], #{HOST_FRAME}
    ret

// Zeroes what a guest could read of another's floating point. EL2 itself has no floating point.
.arch_extension fp
.arch_extension simd
.global fp_reset
fp_reset:
.irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    movi    v\n\().2d, #0
.endr
    msr     fpcr, xzr
    msr     fpsr, xzr
    ret
.arch_extension nosimd
.arch_extension nofp
